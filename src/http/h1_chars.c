/* The character classes of HTTP/1 heads as one table. */
#include "http/h1_int.h"

#define T C_TOKEN
#define V C_VALUE
#define U C_TARGET
#define A C_AUTHORITY
#define X C_HEX

const uint8_t h1_classes[256] = {
    ['\t'] = V,
    [' '] = V,
    ['!'] = T | V | U,
    ['"'] = V | U,
    ['#'] = T | V,
    ['$' ... '\''] = T | V | U,
    ['(' ... ')'] = V | U,
    ['*' ... '+'] = T | V | U,
    [','] = V | U,
    ['-' ... '.'] = T | V | U | A,
    ['/'] = V | U,
    ['0' ... '9'] = T | V | U | A | X,
    [':'] = V | U | A,
    [';' ... '@'] = V | U,
    ['A' ... 'F'] = T | V | U | A | X,
    ['G' ... 'Z'] = T | V | U | A,
    ['['] = V | U | A,
    ['\\'] = V | U,
    [']'] = V | U | A,
    ['^'] = T | V | U,
    ['_'] = T | V | U | A,
    ['`'] = T | V | U,
    ['a' ... 'f'] = T | V | U | A | X,
    ['g' ... 'z'] = T | V | U | A,
    ['{'] = V | U,
    ['|'] = T | V | U,
    ['}'] = V | U,
    ['~'] = T | V | U | A,
    [0x80 ... 0xff] = V,
};
