"""Raw-socket HTTP for tests: bytes out as written, answers read strictly."""
import socket
import time


class Closed(Exception):
    """The peer ended the connection before an answer began."""


class Truncated(Exception):
    """The connection ended inside an answer; .answer holds what came."""

    def __init__(self, answer):
        super().__init__(f"ended inside an answer of status {answer.status} after {len(answer.body)} bytes")
        self.answer = answer


class RawAnswer:
    def __init__(self, status, headers):
        self.status, self.headers, self.body, self.closes = status, headers, b"", False

    def get(self, name):
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        return values[0] if values else None


class Raw:
    """One TCP connection."""

    def __init__(self, ip, port, timeout=10.0, rcvbuf=None):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect((ip, port))
        self.buf = b""

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())
        return self

    def send_lenient(self, data):
        """Sends until done or until the peer does not want more; returns whether all went."""
        try:
            self.send(data)
            return True
        except (ConnectionError, TimeoutError):
            return False

    def more(self):
        """Reads once; False at the end."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self.buf += data
        return bool(data)

    def _line(self):
        while b"\r\n" not in self.buf:
            if not self.more():
                return None
        line, _, self.buf = self.buf.partition(b"\r\n")
        return line

    def head(self):
        line = self._line()
        if line is None:
            raise Closed()
        version, status, *_ = line.split(b" ", 2)
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), line
        headers = []
        while True:
            line = self._line()
            assert line is not None, "ended inside a head"
            if not line:
                break
            name, colon, value = line.partition(b":")
            assert colon and name == name.strip(), line
            headers.append((name.decode("latin1"), value.strip().decode("latin1")))
        return RawAnswer(int(status), headers)

    def _exactly(self, n, answer):
        while len(self.buf) < n:
            if not self.more():
                answer.body += self.buf
                raise Truncated(answer)
        data, self.buf = self.buf[:n], self.buf[n:]
        return data

    def answer(self, to="GET", skip_continue=True):
        """One whole answer. Closed, Truncated when it does not come whole."""
        a = self.head()
        while a.status == 100 and skip_continue:
            a = self.head()
        a.closes = (a.get("connection") or "").lower() == "close"
        assert not (a.get("transfer-encoding") and a.get("content-length")), "both framings"
        if to == "HEAD" or a.status in (204, 304) or a.status < 200:
            return a
        if (a.get("transfer-encoding") or "").lower() == "chunked":
            while True:
                size = self._line()
                if size is None:
                    raise Truncated(a)
                n = int(size.split(b";")[0], 16)
                if n == 0:
                    while True:
                        trailer = self._line()
                        if trailer is None:
                            raise Truncated(a)
                        if not trailer:
                            return a
                a.body += self._exactly(n, a)
                assert self._exactly(2, a) == b"\r\n"
        if a.get("content-length") is not None:
            a.body = self._exactly(int(a.get("content-length")), a)
            return a
        a.closes = True
        while self.more():
            pass
        a.body, self.buf = self.buf, b""
        return a

    def ended(self, timeout=5.0):
        """True when the peer ends the connection within the time (what comes before that is read)."""
        end = time.monotonic() + timeout
        old = self.sock.gettimeout()
        try:
            while time.monotonic() < end:
                self.sock.settimeout(max(0.01, end - time.monotonic()))
                try:
                    if not self.more():
                        return True
                except TimeoutError:
                    return False
            return False
        finally:
            self.sock.settimeout(old)


def exchange(ip, port, data, to="POST", timeout=10.0):
    """Sends the bytes on a connection of their own; every answer until the peer ends it or nothing more comes for a while."""
    answers = []
    with Raw(ip, port, timeout) as c:
        c.send_lenient(data)
        try:
            answers.append(c.answer(to))
            c.sock.settimeout(0.3)
            while not answers[-1].closes:
                answers.append(c.answer(to))
        except (Closed, TimeoutError):
            pass
    return answers


def post(path, body, host="example.com", headers=()):
    """The bytes of a good POST."""
    body = body if isinstance(body, bytes) else body.encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin1") + body
