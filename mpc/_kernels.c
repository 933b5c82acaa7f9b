/*
 * The hot loops of F61 (p = 2^61 - 1) and F127 (p = 2^127 - 1) as numpy ufuncs and gufuncs.
 *
 * The numpy twins are _twin61.py and _twin127.py; one test class runs on both. Here is no Python logic and no
 * allocation: numpy broadcasts, allocates and releases the GIL around the loops. No branch and no address of an
 * arithmetic loop depends on an element.
 *
 * Elements are canonical, in [0, p). Both primes are Mersenne, 2^b - 1, so reducing is folding: 2^b = 1 (mod p).
 * Each line that could overflow states its bound; -DSOTTOVOCE_DEBUG checks these bounds at run time.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/ndarrayobject.h>
#include <numpy/ufuncobject.h>

#include <stdint.h>
#include <string.h>

#if !defined(__SIZEOF_INT128__)
#error "the C kernels need a 128-bit integer type; the numpy twin does not"
#endif
#if NPY_BYTE_ORDER != NPY_LITTLE_ENDIAN
#error "the C kernels are for little-endian machines; the numpy twin runs on all"
#endif

#ifdef SOTTOVOCE_DEBUG
#include <stdio.h>
#include <stdlib.h>
#define BOUND(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: bound broken: %s\n", __FILE__, __LINE__, #condition);                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)
#else
#define BOUND(condition) ((void)0)
#endif

typedef uint8_t u8;
typedef uint64_t u64;
typedef int64_t i64;
typedef unsigned __int128 u128;
typedef __int128 i128;

#define INLINE static inline __attribute__((always_inline))

#define P61 (((u64)1 << 61) - 1)
#define P127 (((u128)1 << 127) - 1)

enum { BLOCK = 256 }; /* entries that a blocked loop keeps on the stack at a time */

/* ---- F61 arithmetic ---------------------------------------------------------------------------------------------- */

INLINE u64 load61(const char *at)
{
    u64 x;
    memcpy(&x, at, 8);
    return x;
}

INLINE void store61(char *at, u64 x)
{
    BOUND(x < P61);
    memcpy(at, &x, 8);
}

/* s <= 2p - 1. s + 1 has bit 61 exactly if s >= p, and then s - p is s + 1 without that bit. */
INLINE u64 canon61(u64 s)
{
    BOUND(s <= 2 * P61 - 1);
    return (s + ((s + 1) >> 61)) & P61;
}

/* v <= (p - 1)^2, or any v whose two parts sum to less than 2p. */
INLINE u64 fold61(u128 v)
{
    BOUND((v >> 61) + ((u64)v & P61) <= 2 * P61 - 1);
    return canon61(((u64)v & P61) + (u64)(v >> 61));
}

/* Any v: 67 bits + 61 bits fold to below 2^67 + 2^61, these to below 2^61 + 2^7 <= 2p - 1. */
INLINE u64 reduce61(u128 v)
{
    return fold61((v & P61) + (v >> 61));
}

/* Any signed v. */
INLINE u64 reduce61_signed(i128 v)
{
    v = (v & (i128)P61) + (v >> 61); /* in [-2^66, 2^66 + 2^61) */
    v = (v & (i128)P61) + (v >> 61); /* in [-2^5, 2^61 + 2^5] */
    v += P61;                        /* in [p - 2^5, 2p + 2^6] */
    BOUND(v >= 0);
    return reduce61((u128)v);
}

INLINE u64 add61(u64 x, u64 y) { return canon61(x + y); }           /* <= 2p - 2 */
INLINE u64 sub61(u64 x, u64 y) { return canon61(x + (P61 - y)); }   /* <= 2p - 1 */
INLINE u64 neg61(u64 x) { return canon61(P61 - x); }                /* <= p */
INLINE u64 mul61(u64 x, u64 y) { return fold61((u128)x * y); }      /* (p-1)^2: quotient and rest sum to <= 2p - 2 */

INLINE u64 beaver61(u64 d, u64 e, u64 a, u64 b, u64 c)
{
    return reduce61((u128)d * b + (u128)e * a + c); /* < 2^122 + 2^122 + 2^61 */
}

INLINE u64 beaver_lead61(u64 d, u64 e, u64 a, u64 b, u64 c)
{
    return reduce61((u128)d * (b + e) + (u128)e * a + c); /* d*b + d*e = d*(b + e) < 2^123; in all < 2^124 */
}

INLINE u64 scale61(u64 x, i64 k)
{
    return reduce61_signed((i128)x * k); /* |x * k| <= 2^61 * 2^63 */
}

INLINE i64 signed61(u64 x)
{
    return (i64)x - (i64)(P61 & -(x >> 60)); /* bit 60 is set exactly above half = 2^60 - 1 */
}

/* Any v: the parts sum to between -4 and p + 3. */
INLINE u64 from_int61(i64 v)
{
    i64 sum = (v & (i64)P61) + (v >> 61);
    return canon61((u64)(sum + (i64)(P61 & (u64)(sum >> 63))));
}

/* |v| <= p */
INLINE u64 from_signed61(i64 v)
{
    return canon61((u64)(v + (i64)(P61 & (u64)(v >> 63))));
}

/* ---- F127 arithmetic --------------------------------------------------------------------------------------------- */

INLINE u128 load127(const char *at)
{
    u64 lo, hi;
    memcpy(&lo, at, 8);
    memcpy(&hi, at + 8, 8);
    return (u128)hi << 64 | lo;
}

INLINE void store127(char *at, u128 x)
{
    u64 lo = (u64)x, hi = (u64)(x >> 64);
    BOUND(x < P127);
    memcpy(at, &lo, 8);
    memcpy(at + 8, &hi, 8);
}

/* s <= 2p - 1, see canon61. */
INLINE u128 canon127(u128 s)
{
    BOUND(s <= 2 * P127 - 1);
    return (s + ((s + 1) >> 127)) & P127;
}

/* Any s: the two parts sum to at most p + 1. */
INLINE u128 fold127(u128 s)
{
    return canon127((s & P127) + (s >> 127));
}

INLINE u128 add127(u128 x, u128 y) { return canon127(x + y); }            /* <= 2p - 2 */
INLINE u128 sub127(u128 x, u128 y) { return canon127(x + (P127 - y)); }   /* <= 2p - 1 */
INLINE u128 neg127(u128 x) { return canon127(P127 - x); }                 /* <= p */

typedef struct {
    u128 lo, hi;
} u256;

/* x, y < 2^127 */
INLINE u256 wide127(u128 x, u128 y)
{
    u64 x0 = (u64)x, x1 = (u64)(x >> 64), y0 = (u64)y, y1 = (u64)(y >> 64);
    u128 low = (u128)x0 * y0;
    u128 cross = (u128)x0 * y1 + (u128)x1 * y0; /* each < 2^64 * 2^63 = 2^127 */
    u128 high = (u128)x1 * y1;                  /* < 2^126 */
    u256 v;
    BOUND(x1 >> 63 == 0 && y1 >> 63 == 0);
    v.lo = low + (cross << 64);
    v.hi = high + (cross >> 64) + (v.lo < low); /* < 2^126 + 2^64 + 1 */
    return v;
}

/* v <= 2 (p-1)^2 + p - 1, so v / 2^127 <= 2p - 2: the rest is at most p, the canonical quotient at most p - 1. */
INLINE u128 reduce127(u256 v)
{
    u128 quotient = v.hi << 1 | v.lo >> 127;
    BOUND(v.hi >> 127 == 0);
    return canon127((v.lo & P127) + canon127(quotient));
}

INLINE u128 mul127(u128 x, u128 y)
{
    u256 v = wide127(x, y);
    u128 quotient = v.hi << 1 | v.lo >> 127;
    return canon127((v.lo & P127) + quotient); /* (p-1)^2: quotient <= p - 2, rest <= p */
}

INLINE u128 beaver127(u128 d, u128 e, u128 a, u128 b, u128 c)
{
    u256 v = wide127(d, b), w = wide127(e, a);
    v.lo += w.lo;
    v.hi += w.hi + (v.lo < w.lo); /* < 2^128 */
    v.lo += c;
    v.hi += v.lo < c;
    return reduce127(v);
}

INLINE u128 beaver_lead127(u128 d, u128 e, u128 a, u128 b, u128 c)
{
    return beaver127(d, e, a, add127(b, e), c); /* d*b + d*e = d*(b + e) */
}

INLINE i128 signed127(u128 x)
{
    return (i128)(x - (P127 & -(x >> 126))); /* bit 126 is set exactly above half = 2^126 - 1 */
}

/* |v| <= p */
INLINE u128 from_signed127(i128 v)
{
    return canon127((u128)v + (P127 & (u128)(v >> 127)));
}

INLINE u128 scale127(u128 x, i64 k)
{
    u64 sign = (u64)(k >> 63), size = ((u64)k ^ sign) - sign; /* |k| <= 2^63 */
    u128 low = (u128)(u64)x * size;                          /* < 2^127 */
    u128 high = (u128)(u64)(x >> 64) * size + (low >> 64);   /* < 2^126 + 2^63 */
    u128 rest = (high << 64 | (u64)low) & P127;
    u128 product = canon127(rest + (high >> 63));            /* the quotient by 2^127 is below 2^64 */
    u128 flip = (u128)(i128)(i64)sign & P127;
    return canon127(product ^ flip);                         /* negation is p - product: all bits flipped */
}

/* low + 2^64 middle + 2^128 high, for signed middle and high below 2^125 in size: 2^128 = 2. */
INLINE u128 join127(u128 low, i128 middle, i128 high)
{
    u128 part = (u128)(middle & (((i128)1 << 63) - 1)) << 64; /* < 2^127; the rest of `middle` has weight 2^127 = 1 */
    i128 small = (middle >> 63) + 2 * high;                   /* below 2^62 + 2^126 in size */
    BOUND(middle >> 125 == middle >> 127 && high >> 125 == high >> 127);
    small = (small & (i128)P127) + (small >> 127);            /* in [0, p]: a negative one has become small + p */
    return add127(add127(fold127(low), canon127(part)), canon127((u128)small));
}

/* ---- loops over entries ------------------------------------------------------------------------------------------ */

typedef PyArrayMethod_StridedLoop Loop;

#define LOOP(name)                                                                                                     \
    static int name(PyArrayMethod_Context *context, char *const *data, const npy_intp *dimensions,                     \
                    const npy_intp *strides, NpyAuxData *aux)

#define UNUSED_ARGUMENTS (void)context, (void)aux

#define AT(operand) (at[operand] + i * step[operand])

/*
 * EXPRESSION reads AT(0), AT(1), ... and is stored at AT(last). The loop stands here twice: where all operands are
 * packed the compiler knows their steps.
 */
#define ENTRYWISE(name, last, PACKED, STORE, EXPRESSION)                                                               \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp n = dimensions[0];                                                                              \
        char *at[last + 1];                                                                                            \
        npy_intp step[last + 1];                                                                                       \
        UNUSED_ARGUMENTS;                                                                                              \
        memcpy(at, data, sizeof at);                                                                                   \
        memcpy(step, strides, sizeof step);                                                                            \
        if (PACKED)                                                                                                    \
            for (npy_intp i = 0; i < n; i++)                                                                           \
                STORE(AT(last), EXPRESSION);                                                                           \
        else                                                                                                           \
            for (npy_intp i = 0; i < n; i++)                                                                           \
                STORE(AT(last), EXPRESSION);                                                                           \
        return 0;                                                                                                      \
    }

#define PACKED2(size) (step[0] == size && step[1] == size)
#define PACKED3(size) (PACKED2(size) && step[2] == size)
#define PACKED6(size) (PACKED3(size) && step[3] == size && step[4] == size && step[5] == size)

INLINE i64 load_int(const char *at)
{
    i64 k;
    memcpy(&k, at, 8);
    return k;
}

INLINE double load_float(const char *at)
{
    double v;
    memcpy(&v, at, 8);
    return v;
}

INLINE void store_int(char *at, i64 k) { memcpy(at, &k, 8); }
INLINE void store_float(char *at, double v) { memcpy(at, &v, 8); }

/* floor((v + 2^(bits-1)) / 2^bits); 1 <= bits <= 60 */
INLINE u64 shift_round61(u64 x, i64 bits)
{
    return from_signed61((signed61(x) + ((i64)1 << (bits - 1))) >> bits); /* below 2^60 + 2^59 */
}

/* 1 <= bits <= 126 */
INLINE u128 shift_round127(u128 x, i64 bits)
{
    return from_signed127((signed127(x) + ((i128)1 << (bits - 1))) >> bits); /* below 2^126 + 2^125 */
}

/* 1 <= m < 2^31 */
INLINE i64 residue61(u64 x, i64 m)
{
    i64 rest = signed61(x) % m;
    return rest + (m & rest >> 63);
}

INLINE u64 residue127(u128 x, u64 m)
{
    u64 rest = (u64)(x >> 64) % m;
    rest = (rest << 32 | (u64)x >> 32) % m; /* < 2^63 */
    return (rest << 32 | (u64)(uint32_t)x) % m;
}

/* The nearest float64; |v| <= half < 2^60. */
INLINE double to_float61(u64 x)
{
    return (double)signed61(x);
}

/* The nearest float64: of a long magnitude the upper 62 bits stay, and whether the rest is zero. */
INLINE double to_float127(u128 x)
{
    u128 flip = P127 & -(x >> 126), size = x ^ flip; /* |v| <= half < 2^126 */
    u64 high = (u64)(size >> 64), bits;
    double v;
    if (high == 0 && (u64)size >> 62 == 0)
        v = (double)(i64)(u64)size;
    else {
        int drop = high ? 66 - __builtin_clzll(high) : 2; /* 3 <= clz(high < 2^62) <= 63 for high > 0 */
        u64 kept = (u64)(size >> drop) | ((size & (((u128)1 << drop) - 1)) != 0);
        u64 exponent = (u64)(1023 + drop) << 52;
        double power;
        memcpy(&power, &exponent, 8);
        v = (double)(i64)kept * power;
    }
    memcpy(&bits, &v, 8);
    bits |= (u64)flip << 63; /* the sign */
    memcpy(&v, &bits, 8);
    return v;
}

ENTRYWISE(f61_add, 2, PACKED3(8), store61, add61(load61(AT(0)), load61(AT(1))))
ENTRYWISE(f61_sub, 2, PACKED3(8), store61, sub61(load61(AT(0)), load61(AT(1))))
ENTRYWISE(f61_mul, 2, PACKED3(8), store61, mul61(load61(AT(0)), load61(AT(1))))
ENTRYWISE(f61_neg, 1, PACKED2(8), store61, neg61(load61(AT(0))))
ENTRYWISE(f61_beaver, 5, PACKED6(8), store61,
          beaver61(load61(AT(0)), load61(AT(1)), load61(AT(2)), load61(AT(3)), load61(AT(4))))
ENTRYWISE(f61_beaver_lead, 5, PACKED6(8), store61,
          beaver_lead61(load61(AT(0)), load61(AT(1)), load61(AT(2)), load61(AT(3)), load61(AT(4))))
ENTRYWISE(f61_scale, 2, PACKED3(8), store61, scale61(load61(AT(0)), load_int(AT(1))))
ENTRYWISE(f61_from_int64, 1, PACKED2(8), store61, from_int61(load_int(AT(0))))
ENTRYWISE(f61_decode_fixed, 2, PACKED3(8), store_float, to_float61(load61(AT(0))) * load_float(AT(1)))
ENTRYWISE(f61_shift_round, 2, PACKED3(8), store61, shift_round61(load61(AT(0)), load_int(AT(1))))
ENTRYWISE(f61_residue, 2, PACKED3(8), store_int, residue61(load61(AT(0)), load_int(AT(1))))

ENTRYWISE(f127_add, 2, PACKED3(16), store127, add127(load127(AT(0)), load127(AT(1))))
ENTRYWISE(f127_sub, 2, PACKED3(16), store127, sub127(load127(AT(0)), load127(AT(1))))
ENTRYWISE(f127_mul, 2, PACKED3(16), store127, mul127(load127(AT(0)), load127(AT(1))))
ENTRYWISE(f127_neg, 1, PACKED2(16), store127, neg127(load127(AT(0))))
ENTRYWISE(f127_beaver, 5, PACKED6(16), store127,
          beaver127(load127(AT(0)), load127(AT(1)), load127(AT(2)), load127(AT(3)), load127(AT(4))))
ENTRYWISE(f127_beaver_lead, 5, PACKED6(16), store127,
          beaver_lead127(load127(AT(0)), load127(AT(1)), load127(AT(2)), load127(AT(3)), load127(AT(4))))
ENTRYWISE(f127_scale, 2, 0, store127, scale127(load127(AT(0)), load_int(AT(1))))
ENTRYWISE(f127_from_int64, 1, 0, store127, from_signed127(load_int(AT(0))))
ENTRYWISE(f127_decode_fixed, 2, 0, store_float, to_float127(load127(AT(0))) * load_float(AT(1)))
ENTRYWISE(f127_shift_round, 2, 0, store127, shift_round127(load127(AT(0)), load_int(AT(1))))

/* Above half stands x - p, so (-p mod m) is added; it changes only where m does. */
LOOP(f127_residue)
{
    u64 m = 1, minus_p = 0;
    UNUSED_ARGUMENTS;
    for (npy_intp i = 0; i < dimensions[0]; i++) {
        u128 x = load127(data[0] + i * strides[0]);
        u64 next = (u64)load_int(data[1] + i * strides[1]);
        if (next != m) {
            m = next;
            minus_p = m - residue127(P127, m);
        }
        store_int(data[2] + i * strides[2], (i64)((residue127(x, m) + (minus_p & -(u64)(x >> 126))) % m));
    }
    return 0;
}

/* ---- loops over flat arrays that also count: (n)->(n),() and the like --------------------------------------------- */

/* Round half to even. From 2^52 on a float64 is an integer; below, adding 2^52 of its sign rounds to one. */
INLINE double round_even(double t)
{
    double shift = __builtin_copysign(4503599627370496.0, t);
    return __builtin_fabs(t) < 4503599627370496.0 ? (t + shift) - shift : t;
}

/* |t| < 2^126, an integer */
INLINE u128 from_float127(double t)
{
    u64 bits;
    int exponent;
    u128 size;
    if (__builtin_fabs(t) < 9223372036854775808.0)
        return from_signed127((i64)t);
    memcpy(&bits, &t, 8);
    exponent = (int)(bits >> 52 & 2047) - 1075;                      /* 63 - 52 <= exponent <= 125 - 52 */
    size = (u128)((bits & (((u64)1 << 52) - 1)) | (u64)1 << 52) << exponent;
    return bits >> 63 ? P127 - size : size;
}

INLINE u64 from_float61(double t)
{
    return from_signed61((i64)t); /* |t| < 2^60 */
}

/*
 * (n),()->(n),(): v * factor, rounded, as elements; and how many are beyond half (or NaN), which leave 0. The factor is
 * a power of two, so the limit is exact; nothing sets a floating-point flag, which numpy would report as a warning.
 */
#define ENCODE(name, size, LIMIT, STORE, FROM_FLOAT)                                                                   \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp n = dimensions[1], step_in = strides[4], step_out = strides[5];                                 \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp outer = 0; outer < dimensions[0]; outer++) {                                                     \
            const char *in = data[0] + outer * strides[0];                                                             \
            const double factor = load_float(data[1] + outer * strides[1]), limit = LIMIT / factor;                    \
            char *out = data[2] + outer * strides[2];                                                                  \
            i64 beyond = 0;                                                                                            \
            for (npy_intp i = 0; i < n; i++) {                                                                         \
                const double v = load_float(in + i * step_in);                                                         \
                const int inside = __builtin_isless(__builtin_fabs(v), limit);                                         \
                beyond += !inside;                                                                                     \
                STORE(out + i * step_out, FROM_FLOAT(round_even((inside ? v : 0.0) * factor)));                        \
            }                                                                                                          \
            store_int(data[3] + outer * strides[3], beyond);                                                           \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

ENCODE(f61_encode_fixed, 8, 0x1p60, store61, from_float61)
ENCODE(f127_encode_fixed, 16, 0x1p126, store127, from_float127)

/* (n)->(n),(): signed representatives, and how many do not fit into an int64. */
#define TO_INT64(name, LOAD, WIDE, SIGNED)                                                                             \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp n = dimensions[1], step_in = strides[3], step_out = strides[4];                                 \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp outer = 0; outer < dimensions[0]; outer++) {                                                     \
            const char *in = data[0] + outer * strides[0];                                                             \
            char *out = data[1] + outer * strides[1];                                                                  \
            i64 unfit = 0;                                                                                             \
            for (npy_intp i = 0; i < n; i++) {                                                                         \
                const WIDE v = SIGNED(LOAD(in + i * step_in));                                                         \
                unfit += v != (i64)v;                                                                                  \
                store_int(out + i * step_out, (i64)v);                                                                 \
            }                                                                                                          \
            store_int(data[2] + outer * strides[2], unfit);                                                            \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

TO_INT64(f61_to_int64, load61, i64, signed61)
TO_INT64(f127_to_int64, load127, i128, signed127)

/* (n)->(): how many entries, of any content, are p or more. */
#define NONCANONICAL(name, LOAD, P)                                                                                    \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp n = dimensions[1], step = strides[2];                                                           \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp outer = 0; outer < dimensions[0]; outer++) {                                                     \
            const char *in = data[0] + outer * strides[0];                                                             \
            i64 above = 0;                                                                                             \
            for (npy_intp i = 0; i < n; i++)                                                                           \
                above += LOAD(in + i * step) >= P;                                                                     \
            store_int(data[1] + outer * strides[1], above);                                                            \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

NONCANONICAL(f61_noncanonical, load61, P61)
NONCANONICAL(f127_noncanonical_any, load127, P127)

/* GCC with glibc compiles these few functions for several instruction sets and picks one when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR
#endif

typedef u64 Four __attribute__((vector_size(64))); /* four entries of two words */

#ifdef __clang__
#define SWAP_FOUR(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6)
#else
#define SWAP_FOUR(x) __builtin_shuffle(x, (Four){1, 0, 3, 2, 5, 4, 7, 6})
#endif

/* Whether all of four times so many packed entries are below 2^127 - 1. */
VECTOR static int all_canonical127(const char *in, npy_intp fours)
{
    const u64 top = (u64)1 << 63;
    const Four last = {~(u64)0, top - 1, ~(u64)0, top - 1, ~(u64)0, top - 1, ~(u64)0, top - 1};
    Four above = {0};
    u64 found = 0;
    for (npy_intp i = 0; i < fours; i++) {
        Four x, is_last;
        memcpy(&x, in + 64 * i, sizeof x);
        is_last = (Four)(x == last);
        above |= x | (is_last & SWAP_FOUR(is_last)); /* what counts is the uppermost bit of upper words */
    }
    for (int i = 1; i < 8; i += 2)
        found |= above[i] & top;
    return !found;
}

LOOP(f127_noncanonical)
{
    const npy_intp n = dimensions[1], step = strides[2], whole = step == 16 ? n / 4 : 0;
    for (npy_intp outer = 0; outer < dimensions[0]; outer++) {
        char *at[2] = {data[0] + outer * strides[0], data[1] + outer * strides[1]};
        npy_intp size[2] = {1, n};
        if (whole && all_canonical127(at[0], whole)) {
            at[0] += 64 * whole;
            size[1] -= 4 * whole;
        }
        if (f127_noncanonical_any(context, at, size, strides, aux) < 0)
            return -1;
    }
    return 0;
}

/* (n),()->(n),(): entries of any content modulo 2^bits, bits <= 127; and how many of them are p. */
LOOP(f127_low_bits)
{
    const npy_intp n = dimensions[1], step_in = strides[4], step_out = strides[5];
    UNUSED_ARGUMENTS;
    for (npy_intp outer = 0; outer < dimensions[0]; outer++) {
        const char *in = data[0] + outer * strides[0];
        const u128 mask = ((u128)1 << load_int(data[1] + outer * strides[1])) - 1;
        char *out = data[2] + outer * strides[2];
        i64 equal = 0;
        for (npy_intp i = 0; i < n; i++) {
            u128 x = load127(in + i * step_in) & mask;
            u64 lo = (u64)x, hi = (u64)(x >> 64);
            equal += x == P127;
            memcpy(out + i * step_out, &lo, 8);
            memcpy(out + i * step_out + 8, &hi, 8);
        }
        store_int(data[3] + outer * strides[3], equal);
    }
    return 0;
}

/* ---- sums: (n)->() ------------------------------------------------------------------------------------------------ */

enum { LANES = 8, COLUMNS = 64, MOST_ROWS = 1 << 30 };

/*
 * Add up rows of `words` words, column by column, halves apart: low[w] += v mod 2^32, high[w] += v / 2^32.
 * At most 2^30 rows, so no sum leaves 62 bits.
 */
INLINE void sum_halves(const char *at, npy_intp rows, npy_intp row_step, npy_intp words, u64 *low, u64 *high)
{
    BOUND(rows <= MOST_ROWS);
    for (npy_intp r = 0; r < rows; r++, at += row_step)
        for (npy_intp w = 0; w < words; w++) {
            u64 v;
            memcpy(&v, at + 8 * w, 8);
            low[w] += (uint32_t)v;
            high[w] += v >> 32;
        }
}

/* Element j of sums of halves. */
INLINE u64 from_halves61(const u64 *low, const u64 *high, npy_intp j)
{
    return reduce61((u128)low[j] + ((u128)high[j] << 32)); /* < 2^62 + 2^94 */
}

INLINE u128 from_halves127(const u64 *low, const u64 *high, npy_intp j)
{
    u128 lo = (u128)low[2 * j] + ((u128)high[2 * j] << 32), hi = (u128)low[2 * j + 1] + ((u128)high[2 * j + 1] << 32);
    return join127(lo, (i128)hi, 0); /* lo, hi < 2^62 + 2^94 */
}

/*
 * Three ways through memory: along a packed axis in rows of LANES words; across packed outer entries (a sum over the
 * first axis of a matrix), COLUMNS words at a time; and entry by entry.
 */
#define SUM(name, TYPE, LOAD, STORE, ADD, FROM_HALVES)                                                                 \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        enum { SIZE = sizeof(TYPE), WORDS = SIZE / 8, LANE_ENTRIES = LANES / WORDS, COLUMN_ENTRIES = COLUMNS / WORDS };\
        const npy_intp outer = dimensions[0], n = dimensions[1], outer_step = strides[0], step = strides[2];           \
        UNUSED_ARGUMENTS;                                                                                              \
        if (outer > 1 && outer_step == SIZE && step != SIZE) {                                                         \
            for (npy_intp o = 0; o < outer; o += COLUMN_ENTRIES) {                                                     \
                const npy_intp count = outer - o < COLUMN_ENTRIES ? outer - o : COLUMN_ENTRIES;                        \
                TYPE total[COLUMN_ENTRIES] = {0};                                                                      \
                for (npy_intp start = 0; start < n; start += MOST_ROWS) {                                              \
                    const npy_intp rows = n - start < MOST_ROWS ? n - start : MOST_ROWS;                               \
                    u64 low[COLUMNS] = {0}, high[COLUMNS] = {0};                                                       \
                    sum_halves(data[0] + o * SIZE + start * step, rows, step, count * WORDS, low, high);               \
                    for (npy_intp j = 0; j < count; j++)                                                               \
                        total[j] = ADD(total[j], FROM_HALVES(low, high, j));                                           \
                }                                                                                                      \
                for (npy_intp j = 0; j < count; j++)                                                                   \
                    STORE(data[1] + (o + j) * strides[1], total[j]);                                                   \
            }                                                                                                          \
            return 0;                                                                                                  \
        }                                                                                                              \
        for (npy_intp o = 0; o < outer; o++) {                                                                         \
            const char *at = data[0] + o * outer_step;                                                                 \
            TYPE total = 0;                                                                                            \
            npy_intp i = 0;                                                                                            \
            while (step == SIZE && n - i >= 2 * LANE_ENTRIES) {                                                        \
                const npy_intp left = (n - i) / LANE_ENTRIES, rows = left < MOST_ROWS ? left : MOST_ROWS;              \
                u64 low[LANES] = {0}, high[LANES] = {0};                                                               \
                sum_halves(at + i * SIZE, rows, LANES * 8, LANES, low, high);                                          \
                for (npy_intp j = 0; j < LANE_ENTRIES; j++)                                                            \
                    total = ADD(total, FROM_HALVES(low, high, j));                                                     \
                i += rows * LANE_ENTRIES;                                                                              \
            }                                                                                                          \
            for (; i < n; i++)                                                                                         \
                total = ADD(total, LOAD(at + i * step));                                                               \
            STORE(data[1] + o * strides[1], total);                                                                    \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

SUM(f61_sum, u64, load61, store61, add61, from_halves61)
SUM(f127_sum, u128, load127, store127, add127, from_halves127)

/* ---- sums of products with public integers: (n),(n)->() ----------------------------------------------------------- */

LOOP(f61_dot)
{
    const npy_intp n = dimensions[1], step_x = strides[3], step_k = strides[4];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const char *x = data[0] + o * strides[0], *k = data[1] + o * strides[1];
        u128 low = 0;
        i128 high = 0;
        for (npy_intp i = 0; i < n; i++) {
            i128 v = (i128)load61(x + i * step_x) * load_int(k + i * step_k); /* |v| < 2^124 */
            low += (u64)v;
            high += (i64)(v >> 64); /* both sums stay below 2^127 for n < 2^63 */
        }
        /* 2^64 = 8 */
        store61(data[2] + o * strides[2], reduce61((u128)reduce61(low) + 8 * (u128)reduce61_signed(high)));
    }
    return 0;
}

LOOP(f127_dot)
{
    const npy_intp n = dimensions[1], step_x = strides[3], step_k = strides[4];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const char *x = data[0] + o * strides[0], *k = data[1] + o * strides[1];
        u128 low = 0;
        i128 middle = 0, high = 0;
        for (npy_intp i = 0; i < n; i++) {
            u128 element = load127(x + i * step_x);
            i64 factor = load_int(k + i * step_k);
            i128 v = (i128)(u64)element * factor;         /* |v| <= 2^64 * 2^63 */
            i128 w = (i128)(i64)(element >> 64) * factor; /* |w| <= 2^63 * 2^63 */
            low += (u64)v;
            middle += (i128)(i64)(v >> 64) + (u64)w; /* each below 2^64 in size, n < 2^60: below 2^125 */
            high += (i64)(w >> 64);
        }
        store127(data[2] + o * strides[2], join127(low, middle, high));
    }
    return 0;
}

/* ---- matrix products with integer accumulators: (n?,k),(k,m?)->(n?,m?) -------------------------------------------- */

/*
 * A block of one column of y is packed on the stack, and every row of x passes over it. The accumulators are reduced
 * once a block, so the result needs no more than one addition for each BLOCK products.
 */
LOOP(f61_matmul)
{
    const npy_intp n = dimensions[1], inner = dimensions[2], m = dimensions[3];
    const npy_intp x_row = strides[3], x_step = strides[4], y_step = strides[5], y_column = strides[6];
    const npy_intp out_row = strides[7], out_column = strides[8];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp j = 0; j < m; j++) {
            const char *y = data[1] + o * strides[1] + j * y_column;
            char *out = data[2] + o * strides[2] + j * out_column;
            npy_intp start = 0;
            do {
                const npy_intp count = inner - start < BLOCK ? inner - start : BLOCK;
                const char *x = data[0] + o * strides[0] + start * x_step;
                u64 column[BLOCK];
                for (npy_intp k = 0; k < count; k++)
                    column[k] = load61(y + (start + k) * y_step);
                for (npy_intp i = 0; i < n; i++) {
                    const char *row = x + i * x_row;
                    u64 total = start ? load61(out + i * out_row) : 0;
                    for (npy_intp k = 0; k < count;) {
                        const npy_intp stop = count - k < 32 ? count : k + 32;
                        u128 sum = 0;
                        for (; k < stop; k++)
                            sum += (u128)load61(row + k * x_step) * column[k]; /* 32 * 2^122 = 2^127 */
                        total = add61(total, reduce61(sum));
                    }
                    store61(out + i * out_row, total);
                }
                start += BLOCK;
            } while (start < inner);
        }
    return 0;
}

/* low + 2^64 middle + 2^128 high, each continued by a count of carries of at most BLOCK: 2^128 = 2, 2^256 = 4. */
INLINE u128 join_sums127(u128 low, u64 low_carry, u128 middle, u64 middle_carry, u128 high, u64 high_carry)
{
    u128 twice = fold127(high);
    u128 small = 2 * (middle >> 64) + 2 * (u128)low_carry + 4 * (u128)high_carry + ((u128)middle_carry << 65);
    BOUND(low_carry <= BLOCK && middle_carry <= BLOCK && high_carry <= BLOCK); /* so small < 2^75 */
    return add127(add127(add127(fold127(low), fold127(middle << 64)), small), add127(twice, twice));
}

LOOP(f127_matmul)
{
    const npy_intp n = dimensions[1], inner = dimensions[2], m = dimensions[3];
    const npy_intp x_row = strides[3], x_step = strides[4], y_step = strides[5], y_column = strides[6];
    const npy_intp out_row = strides[7], out_column = strides[8];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp j = 0; j < m; j++) {
            const char *y = data[1] + o * strides[1] + j * y_column;
            char *out = data[2] + o * strides[2] + j * out_column;
            npy_intp start = 0;
            do {
                const npy_intp count = inner - start < BLOCK ? inner - start : BLOCK;
                const char *x = data[0] + o * strides[0] + start * x_step;
                u128 column[BLOCK];
                for (npy_intp k = 0; k < count; k++)
                    column[k] = load127(y + (start + k) * y_step);
                for (npy_intp i = 0; i < n; i++) {
                    const char *row = x + i * x_row;
                    const u128 total = start ? load127(out + i * out_row) : 0;
                    u128 low = 0, middle = 0, high = 0; /* of weight 1, 2^64, 2^128, each with a count of carries */
                    u64 low_carry = 0, middle_carry = 0, high_carry = 0;
                    for (npy_intp k = 0; k < count; k++) {
                        const u128 a = load127(row + k * x_step), b = column[k];
                        const u64 a0 = (u64)a, a1 = (u64)(a >> 64), b0 = (u64)b, b1 = (u64)(b >> 64);
                        low_carry += __builtin_add_overflow(low, (u128)a0 * b0, &low);
                        /* a1, b1 < 2^63, so the cross products sum to less than 2^128 */
                        middle_carry += __builtin_add_overflow(middle, (u128)a0 * b1 + (u128)a1 * b0, &middle);
                        high_carry += __builtin_add_overflow(high, (u128)a1 * b1, &high);
                    }
                    store127(out + i * out_row,
                             add127(total, join_sums127(low, low_carry, middle, middle_carry, high, high_carry)));
                }
                start += BLOCK;
            } while (start < inner);
        }
    return 0;
}

/* ---- conversions for float64 matrix products, see _crt_matmul.py --------------------------------------------------- */

enum { LIMB_BITS = 26, MOST_LIMBS = 5 };

typedef double Lane[BLOCK];

/* The nearest integer, |t| < 2^51: the sum has no room for a fraction. */
INLINE double nearest(double t)
{
    const double shift = 6755399441055744.0; /* 1.5 * 2^52 */
    return (t + shift) - shift;
}

/* |sum of limbs * powers| < limbs * 2^26 * 2^23 < 2^51.4; quotient and its product with m are exact */
INLINE void residue_lane(const Lane *limbs, int count, const double *constants, double *out)
{
    const double m = constants[0], inverse = constants[1], *powers = constants + 2;
    for (int e = 0; e < BLOCK; e++) {
        double t = limbs[0][e] * powers[0];
        for (int j = 1; j < count; j++)
            t += limbs[j][e] * powers[j];
        out[e] = t - nearest(t * inverse) * m;
        BOUND(__builtin_fabs(t) < 0x1p52 && __builtin_fabs(out[e]) < m / 2 + 2);
    }
}

VECTOR static void residue_lane61(const Lane *limbs, const double *constants, double *out)
{
    residue_lane(limbs, 3, constants, out);
}

VECTOR static void residue_lane127(const Lane *limbs, const double *constants, double *out)
{
    residue_lane(limbs, 5, constants, out);
}

/* |products| <= 2^53, m < 2^24, |t| <= m/2 + 2: t * cofactor < 2^47; at most 15 primes, so limbs stay below 2^53 */
INLINE void join_lane(const double *products, const double *constants, double *quotient, Lane *limbs, int count)
{
    const double m = constants[0], inverse = constants[1], cofactor = constants[2], *words = constants + 3;
    for (int e = 0; e < BLOCK; e++) {
        double t = products[e] - nearest(products[e] * inverse) * m;
        t *= cofactor;
        t -= nearest(t * inverse) * m;
        quotient[e] += t * inverse;
        for (int j = 0; j < count; j++)
            limbs[j][e] += t * words[j];
        BOUND(__builtin_fabs(t) < m / 2 + 2 && __builtin_fabs(limbs[0][e]) < 0x1p53);
    }
}

VECTOR static void join_lane61(const double *products, const double *constants, double *quotient, Lane *limbs)
{
    join_lane(products, constants, quotient, limbs, 3);
}

VECTOR static void join_lane127(const double *products, const double *constants, double *quotient, Lane *limbs)
{
    join_lane(products, constants, quotient, limbs, 5);
}

INLINE double limb(u128 x, int j)
{
    return (double)(int32_t)((u64)(x >> (LIMB_BITS * j)) & (((u64)1 << LIMB_BITS) - 1));
}

INLINE void read_floats(double *to, const char *from, npy_intp count, npy_intp step)
{
    for (npy_intp i = 0; i < count; i++)
        to[i] = load_float(from + i * step);
}

/* (n),(q,c)->(q,n): element and rows of constants (m, 1/m, powers) to centred residues. */
#define RESIDUES(name, LOAD, LIMBS, RESIDUE_LANE)                                                                      \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp n = dimensions[1], primes = dimensions[2];                                                      \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp o = 0; o < dimensions[0]; o++)                                                                   \
            for (npy_intp start = 0; start < n; start += BLOCK) {                                                      \
                const npy_intp count = n - start < BLOCK ? n - start : BLOCK;                                          \
                const char *x = data[0] + o * strides[0] + start * strides[3];                                         \
                char *out = data[2] + o * strides[2] + start * strides[7];                                             \
                Lane limbs[LIMBS] = {{0}}, lane;                                                                       \
                for (npy_intp i = 0; i < count; i++)                                                                   \
                    for (int j = 0; j < LIMBS; j++)                                                                    \
                        limbs[j][i] = limb(LOAD(x + i * strides[3]), j);                                               \
                for (npy_intp q = 0; q < primes; q++) {                                                                \
                    double constants[2 + LIMBS];                                                                       \
                    read_floats(constants, data[1] + o * strides[1] + q * strides[4], 2 + LIMBS, strides[5]);          \
                    RESIDUE_LANE((const Lane *)limbs, constants, lane);                                                \
                    for (npy_intp i = 0; i < count; i++)                                                               \
                        store_float(out + q * strides[6] + i * strides[7], lane[i]);                                   \
                }                                                                                                      \
            }                                                                                                          \
        return 0;                                                                                                      \
    }

RESIDUES(f61_residues, load61, 3, residue_lane61)
RESIDUES(f127_residues, load127, 5, residue_lane127)

/* Signed limbs, each at most 2^53 in size. */
INLINE u64 from_limbs61(const Lane *limbs, npy_intp i)
{
    const i128 shift = (i128)1 << LIMB_BITS;
    return reduce61_signed((i64)limbs[0][i] + shift * ((i64)limbs[1][i] + shift * (i64)limbs[2][i])); /* < 2^106 */
}

INLINE u128 from_limbs127(const Lane *limbs, npy_intp i)
{
    /* < 2^53 + 2^79 + 2^105, and < 2^53 + 2^79 of weight 2^78, whose part from 2^49 on has weight 2^127 = 1 */
    const i128 shift = (i128)1 << LIMB_BITS;
    i128 low = (i64)limbs[0][i] + shift * ((i64)limbs[1][i] + shift * (i64)limbs[2][i]);
    i128 high = (i64)limbs[3][i] + shift * (i64)limbs[4][i];
    u128 part = (u128)(high & (((i128)1 << 49) - 1)) << 78;
    return add127(canon127(part), from_signed127(low + (high >> 49)));
}

/* (q,n),(r,c)->(n): exact products modulo q primes and r = q + 1 rows of constants to elements. */
#define JOIN(name, LIMBS, STORE, JOIN_LANE, FROM_LIMBS)                                                                \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp primes = dimensions[1], n = dimensions[2];                                                      \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp o = 0; o < dimensions[0]; o++)                                                                   \
            for (npy_intp start = 0; start < n; start += BLOCK) {                                                      \
                const npy_intp count = n - start < BLOCK ? n - start : BLOCK;                                          \
                const char *products = data[0] + o * strides[0] + start * strides[4];                                  \
                const char *weights = data[1] + o * strides[1];                                                        \
                char *out = data[2] + o * strides[2] + start * strides[7];                                             \
                Lane limbs[LIMBS] = {{0}}, quotient = {0}, lane = {0};                                                 \
                double constants[3 + LIMBS];                                                                           \
                for (npy_intp q = 0; q < primes; q++) {                                                                \
                    read_floats(lane, products + q * strides[3], count, strides[4]);                                   \
                    read_floats(constants, weights + q * strides[5], 3 + LIMBS, strides[6]);                           \
                    JOIN_LANE(lane, constants, quotient, limbs);                                                       \
                }                                                                                                      \
                read_floats(constants, weights + primes * strides[5], 3 + LIMBS, strides[6]);                          \
                for (npy_intp i = 0; i < count; i++) {                                                                 \
                    for (int j = 0; j < LIMBS; j++)                                                                    \
                        limbs[j][i] += nearest(quotient[i]) * constants[3 + j];                                        \
                    STORE(out + i * strides[7], FROM_LIMBS((const Lane *)limbs, i));                                   \
                }                                                                                                      \
            }                                                                                                          \
        return 0;                                                                                                      \
    }

JOIN(f61_join, 3, store61, join_lane61, from_limbs61)
JOIN(f127_join, 5, store127, join_lane127, from_limbs127)

/* ---- products by correlated transfers: see mpc/ot/pads.py --------------------------------------------------------- */

/*
 * Sums of 2^t x_t, doubled and added to from the last term down, and reduced after each stretch of terms. Pads are any
 * words, of whose bits as many count as an element has: a pad may be p, which is 0.
 */
typedef struct {
    u128 low;
    u64 high;
} Sum;

enum { STRETCH61 = 60, STRETCH127 = 32 };

/* Terms are below 2^128: after a stretch, from below 2^127, the sum is below 2^160. */
INLINE void double_and_add(Sum *sum, u128 term)
{
    const u128 twice = sum->low << 1, low = twice + term;
    sum->high = (sum->high << 1 | (u64)(sum->low >> 127)) + (low < twice);
    sum->low = low;
}

INLINE u128 reduced127(Sum sum) { return fold127((sum.low & P127) + ((u128)sum.high << 1 | sum.low >> 127)); }

INLINE u128 pad127(const char *at) { return load127(at) & P127; }

/* pad, other <= p and value < p */
INLINE u128 correction127(u128 pad, u128 other, u128 value)
{
    const u128 difference = pad + (P127 - other);                       /* <= 2p */
    return fold127((difference & P127) + (difference >> 127) + value);  /* <= 2p */
}

/* Terms are below 2^62: after a stretch, from below 2^61, the sum is below 2^122. */
INLINE u64 reduced61(Sum sum) { return reduce61(sum.low); }

INLINE u64 pad61(const char *at) { return load61(at) & P61; }

NONCANONICAL(f61_rejected, pad61, P61)

INLINE u64 correction61(u64 pad, u64 other, u64 value) { return reduce61((u128)pad + (P61 - other) + value); }

/* (t),(t),()->(t),(): pads h, other pads g, a value v: corrections h - g + v, and -(sum of 2^t h_t). */
#define OFFER(name, TYPE, LOAD, STORE, PAD, CORRECTION, NEG, REDUCED, STRETCH)                                         \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp pad_step = strides[5], other_step = strides[6], out_step = strides[7];                          \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp o = 0; o < dimensions[0]; o++) {                                                                 \
            const char *pads = data[0] + o * strides[0], *others = data[1] + o * strides[1];                           \
            const TYPE value = LOAD(data[2] + o * strides[2]);                                                         \
            char *out = data[3] + o * strides[3];                                                                      \
            Sum sum = {0, 0};                                                                                          \
            for (npy_intp end = dimensions[1]; end > 0; end -= STRETCH) {                                              \
                for (npy_intp t = end - 1; t >= 0 && t >= end - STRETCH; t--) {                                        \
                    const TYPE pad = PAD(pads + t * pad_step);                                                         \
                    STORE(out + t * out_step, CORRECTION(pad, PAD(others + t * other_step), value));                   \
                    double_and_add(&sum, pad);                                                                         \
                }                                                                                                      \
                sum = (Sum){REDUCED(sum), 0};                                                                          \
            }                                                                                                          \
            STORE(data[4] + o * strides[4], NEG((TYPE)sum.low));                                                       \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

OFFER(f61_offer, u64, load61, store61, pad61, correction61, neg61, reduced61, STRETCH61)
OFFER(f127_offer_any, u128, load127, store127, pad127, correction127, neg127, reduced127, STRETCH127)

/* (t),(t),(t)->(): pads h, corrections m, bits c: the sum of 2^t (h_t + c_t m_t), without a branch on a bit. */
#define ADD_UP(name, TYPE, LOAD, STORE, PAD, REDUCED, STRETCH)                                                         \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const npy_intp pad_step = strides[4], correction_step = strides[5], bit_step = strides[6];                     \
        UNUSED_ARGUMENTS;                                                                                              \
        for (npy_intp o = 0; o < dimensions[0]; o++) {                                                                 \
            const char *pads = data[0] + o * strides[0], *corrections = data[1] + o * strides[1];                      \
            const char *bits = data[2] + o * strides[2];                                                               \
            Sum sum = {0, 0};                                                                                          \
            for (npy_intp end = dimensions[1]; end > 0; end -= STRETCH) {                                              \
                for (npy_intp t = end - 1; t >= 0 && t >= end - STRETCH; t--) {                                        \
                    const TYPE mask = -(TYPE)(bits[t * bit_step] & 1);                                                 \
                    double_and_add(&sum, PAD(pads + t * pad_step) + (LOAD(corrections + t * correction_step) & mask)); \
                }                                                                                                      \
                sum = (Sum){REDUCED(sum), 0};                                                                          \
            }                                                                                                          \
            STORE(data[3] + o * strides[3], (TYPE)sum.low);                                                            \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

ADD_UP(f61_add_up, u64, load61, store61, pad61, reduced61, STRETCH61)
ADD_UP(f127_add_up_any, u128, load127, store127, pad127, reduced127, STRETCH127)

/* ---- slots -------------------------------------------------------------------------------------------------------- */

/* The gufuncs check no shape across operands but equal names. */
static int refuse(const char *message)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyErr_SetString(PyExc_ValueError, message);
    PyGILState_Release(state);
    return -1;
}

/*
 * Transforms of numbers u + v i with i^2 = -1, the u in the first half of the operand and the v in the second; roots of
 * unity as cosines and sines, one for each butterfly of the tree (mpc.ot.slots).
 *
 * Evaluating takes (a, b) to (a + w b, a - w b). Interpolating takes (a, b) to (a + b, (a - b) / w), 1 / w = c - s i;
 * in the end all is divided by k, a power of 2, which turns bits around: 2^b = 1.
 */
INLINE u64 halve61(u64 x, int times) { return (x >> times | x << (61 - times)) & P61; }
INLINE u128 halve127(u128 x, int times) { return (x >> times | x << (127 - times)) & P127; }

#define SLOTS(field, TYPE)                                                                                             \
    static void evaluate##field(char *x, const char *cosines, const char *sines, npy_intp k)                           \
    {                                                                                                                  \
        const npy_intp size = sizeof(TYPE);                                                                            \
        for (npy_intp m = 1, t = k / 2; t; m *= 2, t /= 2)                                                             \
            for (npy_intp i = 0; i < m; i++) {                                                                         \
                const TYPE c = load##field(cosines + (m + i) * size), s = load##field(sines + (m + i) * size);         \
                const TYPE minus = neg##field(s);                                                                      \
                for (npy_intp j = 0; j < t; j++) {                                                                     \
                    char *upper = x + (2 * i * t + j) * size, *lower = upper + t * size;                               \
                    const TYPE u = load##field(upper), v = load##field(upper + k * size);                              \
                    const TYPE w = load##field(lower), y = load##field(lower + k * size);                              \
                    const TYPE real = beaver##field(w, y, minus, c, u), other = beaver##field(w, y, c, s, v);          \
                    store##field(upper, real);                                                                         \
                    store##field(upper + k * size, other);                                                             \
                    store##field(lower, sub##field(add##field(u, u), real));                                           \
                    store##field(lower + k * size, sub##field(add##field(v, v), other));                               \
                }                                                                                                      \
            }                                                                                                          \
    }                                                                                                                  \
                                                                                                                       \
    static void interpolate##field(char *x, const char *cosines, const char *sines, npy_intp k)                        \
    {                                                                                                                  \
        const npy_intp size = sizeof(TYPE);                                                                            \
        int levels = 0;                                                                                                \
        for (npy_intp t = 1, m = k / 2; m; t *= 2, m /= 2, levels++)                                                   \
            for (npy_intp i = 0; i < m; i++) {                                                                         \
                const TYPE c = load##field(cosines + (m + i) * size), s = load##field(sines + (m + i) * size);         \
                const TYPE minus = neg##field(s);                                                                      \
                for (npy_intp j = 0; j < t; j++) {                                                                     \
                    char *upper = x + (2 * i * t + j) * size, *lower = upper + t * size;                               \
                    const TYPE u = load##field(upper), v = load##field(upper + k * size);                              \
                    const TYPE w = load##field(lower), y = load##field(lower + k * size);                              \
                    const TYPE real = sub##field(u, w), other = sub##field(v, y);                                      \
                    store##field(upper, add##field(u, w));                                                             \
                    store##field(upper + k * size, add##field(v, y));                                                  \
                    store##field(lower, beaver##field(real, other, s, c, 0));                                          \
                    store##field(lower + k * size, beaver##field(real, other, c, minus, 0));                           \
                }                                                                                                      \
            }                                                                                                          \
        for (npy_intp i = 0; i < 2 * k; i++)                                                                           \
            store##field(x + i * size, halve##field(load##field(x + i * size), levels));                               \
    }                                                                                                                  \
                                                                                                                       \
    LOOP(f##field##_evaluate)                                                                                          \
    {                                                                                                                  \
        UNUSED_ARGUMENTS;                                                                                              \
        return slots(data, dimensions, strides, sizeof(TYPE), evaluate##field);                                        \
    }                                                                                                                  \
                                                                                                                       \
    LOOP(f##field##_interpolate)                                                                                       \
    {                                                                                                                  \
        UNUSED_ARGUMENTS;                                                                                              \
        return slots(data, dimensions, strides, sizeof(TYPE), interpolate##field);                                     \
    }

/* (n),(k),(k)->(n) with n = 2k: a copy of the first operand is transformed where it stands. */
static int slots(char *const *data, const npy_intp *dimensions, const npy_intp *strides, npy_intp size,
                 void (*one)(char *, const char *, const char *, npy_intp))
{
    const npy_intp n = dimensions[1], k = dimensions[2];
    if (n != 2 * k || k < 2 || k & (k - 1))
        return refuse("slots are those of 2^k numbers, at least 4, with half as many roots");
    if (strides[4] != size || strides[5] != size || strides[6] != size || strides[7] != size)
        return refuse("slots take operands in one piece");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        char *x = data[3] + o * strides[3];
        memmove(x, data[0] + o * strides[0], (size_t)(n * size));
        one(x, data[1] + o * strides[1], data[2] + o * strides[2], k);
    }
    return 0;
}

SLOTS(61, u64)
SLOTS(127, u128)

/* ---- correlated elements: see mpc/ot/_correlating.py -------------------------------------------------------------- */

enum { FEW = 4, MOST_DEPTH = 8, BIAS = 20 };

typedef u64 Pads __attribute__((vector_size(FEW * 16))); /* two words of each of FEW numbers */

#define WORDS(low, high) ((Pads){low, high, low, high, low, high, low, high})

#ifdef __clang__
#define SWAP_WORDS(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6)
#else
#define SWAP_WORDS(x) __builtin_shuffle(x, (Pads){1, 0, 3, 2, 5, 4, 7, 6})
#endif

/* FEW numbers: of each word the lower and the upper digit of 32 bits, which may have grown. */
typedef struct {
    Pads lower, upper;
} Digits;

/* x + 2^times y */
INLINE void add_digits(Digits *x, const Digits *y, int times)
{
    x->lower += y->lower << times;
    x->upper += y->upper << times;
}

/* Digits below 2^54: each word gives what it has beyond 64, or 63, bits to the other. */
INLINE void reduce_digits127(const Digits *x, Pads *out)
{
    Pads upper = x->upper + (x->lower >> 32), word, sum, is_p;
    const Pads lower = (x->lower & UINT32_MAX) + SWAP_WORDS(upper >> WORDS(32, 31)); /* 2^127 = 1; < 2^32 + 2^24 */
    upper = (upper & WORDS(UINT32_MAX, INT32_MAX)) + (lower >> 32); /* <= 2^32, in the upper word <= 2^31 */
    word = ((lower & UINT32_MAX) | upper << 32) + SWAP_WORDS(upper >> 32); /* < 2^127 + 2^97 in all */
    sum = (word & WORDS(UINT64_MAX, INT64_MAX)) + (SWAP_WORDS(word >> 63) & WORDS(1, 0));
    sum -= SWAP_WORDS((Pads)(sum < word) & WORDS(UINT64_MAX, 0)); /* a carry, after which the upper word is small */
    is_p = (Pads)(sum == WORDS(UINT64_MAX, INT64_MAX));
    *out = sum & ~(is_p & SWAP_WORDS(is_p));
}

/* Digits below 2^54 in size, in two's complement. */
INLINE u64 reduce_digits61(const Digits *x, npy_intp i)
{
    const i128 low = (i64)x->lower[2 * i] + ((i128)(i64)x->upper[2 * i] << 32); /* < 2^87 */
    const i128 high = (i64)x->lower[2 * i + 1] + ((i128)(i64)x->upper[2 * i + 1] << 32);
    return reduce61_signed(low + 8 * high); /* 2^64 = 8 */
}

/* Up to FEW elements, or pads as those of F127, that lie side by side. */
INLINE void read_few(int field, const char *from, npy_intp count, Digits *to)
{
    Pads x = {0};
    if (field == 61)
        for (npy_intp i = 0; i < count; i++)
            x[2 * i] = load61(from + 8 * i);
    else if (count == FEW) /* of a size that is known */
        memcpy(&x, from, sizeof x);
    else
        memcpy(&x, from, (size_t)count * 16);
    to->lower = x & UINT32_MAX;
    to->upper = x >> 32;
}

INLINE void write_few(int field, char *to, const Digits *x, npy_intp count)
{
    Pads words;
    if (field == 61)
        for (npy_intp i = 0; i < count; i++)
            store61(to + 8 * i, reduce_digits61(x, i));
    else {
        reduce_digits127(x, &words);
        if (count == FEW)
            memcpy(to, &words, sizeof words);
        else
            memcpy(to, &words, (size_t)count * 16);
    }
}

/* Rows of pads, `row` bytes apart; elements side by side. */
typedef struct {
    const char *pads;
    npy_intp row;
    const char *elements, *before; /* values or corrections, and sums */
    char *corrections, *after;
} Tree;

INLINE void prove_few(int field, int depth, const Tree *at, npy_intp count)
{
    Digits sum = {{0}, {0}}, weighted = {{0}, {0}}, x; /* digits < 2^40 and 2^48 */
    for (int y = (1 << depth) - 1; y >= 0; y--) {
        read_few(127, at->pads + y * at->row, count, &x);
        add_digits(&sum, &x, 0);
        if (y)
            add_digits(&weighted, &sum, 0); /* the pad y is part of the sum y times */
    }
    read_few(field, at->elements, count, &x);
    add_digits(&sum, &x, 0);
    write_few(field, at->corrections, &sum, count);
    read_few(field, at->before, count, &x);
    add_digits(&weighted, &x, depth);
    write_few(field, at->after, &weighted, count);
}

INLINE void hold_few(int field, int depth, const u64 *bits, const Tree *at, npy_intp count)
{
    Digits sums[MOST_DEPTH] = {{{0}, {0}}}, total = {{0}, {0}}, u, x;
    if (field == 127) { /* a multiple of p that makes digits from -2^48 up positive */
        total.lower += (u64)UINT32_MAX << BIAS;
        total.upper += WORDS((u64)UINT32_MAX << BIAS, (u64)INT32_MAX << BIAS);
    }
    read_few(field, at->before, count, &x);
    add_digits(&total, &x, depth);
    for (int y = 1; y < 1 << depth; y++) {
        read_few(127, at->pads + y * at->row, count, &x);
        for (int b = 0; b < depth; b++)
            if (y >> b & 1)
                add_digits(&sums[b], &x, 0);
    }
    read_few(field, at->elements, count, &u);
    for (int b = 0; b < depth; b++) { /* S_b, or u - S_b where the bit is set; 2^b times: < 2^48 in size */
        x.lower = (sums[b].lower ^ bits[b]) - bits[b] + (u.lower & bits[b]);
        x.upper = (sums[b].upper ^ bits[b]) - bits[b] + (u.upper & bits[b]);
        add_digits(&total, &x, b);
    }
    write_few(field, at->after, &total, count);
}

/* At the prover corrections are wanted, at the holder there are bits, spread to words. */
INLINE void add_tree(int field, int depth, const u64 *bits, const Tree *at, npy_intp n)
{
    const npy_intp size = field == 61 ? 8 : 16;
    for (npy_intp i = 0; i < n; i += FEW) {
        const npy_intp count = n - i < FEW ? n - i : FEW;
        const Tree few = {at->pads + 16 * i,      at->row, at->elements + size * i,
                          at->before + size * i, bits ? NULL : at->corrections + size * i, at->after + size * i};
        if (bits && count == FEW)
            hold_few(field, depth, bits, &few, FEW);
        else if (bits)
            hold_few(field, depth, bits, &few, count);
        else if (count == FEW)
            prove_few(field, depth, &few, FEW);
        else
            prove_few(field, depth, &few, count);
    }
}

enum { USUAL = 3 }; /* of a depth that is known, all sums of a few numbers are in registers */

INLINE void add_tree_of(int field, int depth, const u64 *bits, const Tree *at, npy_intp n)
{
    if (depth == USUAL)
        add_tree(field, USUAL, bits, at, n);
    else
        add_tree(field, depth, bits, at, n);
}

VECTOR static void prove61(int depth, const Tree *at, npy_intp n) { add_tree_of(61, depth, NULL, at, n); }
VECTOR static void prove127(int depth, const Tree *at, npy_intp n) { add_tree_of(127, depth, NULL, at, n); }
VECTOR static void hold61(int depth, const u64 *bits, const Tree *at, npy_intp n) { add_tree_of(61, depth, bits, at, n); }
VECTOR static void hold127(int depth, const u64 *bits, const Tree *at, npy_intp n) { add_tree_of(127, depth, bits, at, n); }

/* The depth of a tree of pads (m,n,2), all of whose operands but the pads' rows are in one piece; 0 for none. */
static int depth_of(const npy_intp *dimensions, const npy_intp *strides, npy_intp size, const int *elements)
{
    const npy_intp leaves = dimensions[1], n = dimensions[2];
    int depth = 1;
    while (depth < MOST_DEPTH && (npy_intp)1 << depth < leaves)
        depth++;
    if (leaves != (npy_intp)1 << depth || dimensions[3] != 2 || (n && strides[7] != 8) || (n > 1 && strides[6] != 16))
        return 0;
    for (; *elements; elements++)
        if (n > 1 && strides[*elements] != size)
            return 0;
    return depth;
}

static int refuse_tree(void)
{
    return refuse("a tree takes 2^k rows of pads of two words, k from 1 to 8, and operands in one piece");
}

/* (m,n,2),(n),(n)->(n),(n): pads, values x and sums s: corrections x + sum of pads, and m s + sum of y pad_y. */
#define PROVE(name, size, prove)                                                                                       \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const int elements[] = {8, 9, 10, 11, 0}, depth = depth_of(dimensions, strides, size, elements);               \
        UNUSED_ARGUMENTS;                                                                                              \
        if (!depth)                                                                                                    \
            return refuse_tree();                                                                                      \
        for (npy_intp o = 0; o < dimensions[0]; o++) {                                                                 \
            const Tree at = {data[0] + o * strides[0], strides[5], data[1] + o * strides[1], data[2] + o * strides[2], \
                             data[3] + o * strides[3], data[4] + o * strides[4]};                                      \
            prove(depth, &at, dimensions[2]);                                                                           \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

/* (m,n,2),(n),(k),(n)->(n): pads, corrections u, bits d_b and sums s: m s + sum of 2^b (S_b, or u - S_b if d_b). */
#define HOLD(name, size, hold)                                                                                         \
    LOOP(name)                                                                                                         \
    {                                                                                                                  \
        const int elements[] = {8, 10, 11, 0}, depth = depth_of(dimensions, strides, size, elements);                  \
        UNUSED_ARGUMENTS;                                                                                              \
        if (!depth || dimensions[4] != depth)                                                                          \
            return refuse_tree();                                                                                      \
        for (npy_intp o = 0; o < dimensions[0]; o++) {                                                                 \
            const Tree at = {data[0] + o * strides[0], strides[5], data[1] + o * strides[1], data[3] + o * strides[3], \
                             NULL, data[4] + o * strides[4]};                                                          \
            u64 bits[MOST_DEPTH];                                                                                      \
            for (int b = 0; b < depth; b++)                                                                            \
                bits[b] = -(u64)(*(data[2] + o * strides[2] + b * strides[9]) & 1);                                    \
            hold(depth, bits, &at, dimensions[2]);                                                                      \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

PROVE(f61_prove, 8, prove61)
PROVE(f127_prove, 16, prove127)
HOLD(f61_hold, 8, hold61)
HOLD(f127_hold, 16, hold127)

/* ---- products by correlated transfers once more: four terms of F127 at a time, where they lie side by side ---------- */

enum { STEPS = 5 };

/* So many pads, or elements, at most FEW, and zeros; or p minus them. */
INLINE void read_digits(const char *from, npy_intp count, int minus, Digits *to)
{
    Pads x = {0};
    if (count >= FEW) /* of a size that is known */
        memcpy(&x, from, sizeof x);
    else
        memcpy(&x, from, (size_t)count * 16);
    x = (minus ? ~x : x) & WORDS(UINT64_MAX, INT64_MAX);
    to->lower = x & UINT32_MAX;
    to->upper = x >> 32;
}

/*
 * Add FEW further terms of a sum of 2^t x_t that is made from the last terms down, each lane by itself: 16 times what it
 * was. Terms have digits below 2^33: after STEPS of them, from digits below 2^32, digits are below 2^54.
 */
INLINE void go_down(Digits *sum, const Digits *x, int *steps)
{
    if (++*steps == STEPS) {
        Pads words;
        reduce_digits127(sum, &words);
        read_digits((const char *)&words, FEW, 0, sum);
        *steps = 0;
    }
    sum->lower = (sum->lower << 4) + x->lower;
    sum->upper = (sum->upper << 4) + x->upper;
}

/* What the lanes have, 1, 2, 4 and 8 times, in one sum; minus that, if wanted. */
INLINE void write_lanes(char *to, const Digits *sum, int minus)
{
    Pads words, lower, upper;
    Digits x, total = {{0}, {0}};
    reduce_digits127(sum, &words);
    read_digits((const char *)&words, FEW, 0, &x);
    lower = x.lower << (Pads){0, 0, 1, 1, 2, 2, 3, 3};
    upper = x.upper << (Pads){0, 0, 1, 1, 2, 2, 3, 3};
    for (int half = 0; half < 2; half++) {
        total.lower[half] = lower[half] + lower[2 + half] + lower[4 + half] + lower[6 + half];
        total.upper[half] = upper[half] + upper[2 + half] + upper[4 + half] + upper[6 + half];
    }
    reduce_digits127(&total, &words);
    if (minus) {
        read_digits((const char *)&words, FEW, 1, &x); /* p - 0 is 0 */
        reduce_digits127(&x, &words);
    }
    memcpy(to, &words, 16);
}

VECTOR static void offer_row(const char *pads, const char *others, const char *value, char *out, char *summand,
                             npy_intp n)
{
    const u128 v = load127(value);
    const Pads both = WORDS((u64)v, (u64)(v >> 64));
    Digits sum = {{0}, {0}}, values, pad, x;
    int steps = 0;
    read_digits((const char *)&both, FEW, 0, &values);
    for (npy_intp i = (n - 1) / FEW * FEW; i >= 0; i -= FEW) {
        Pads words;
        read_digits(pads + 16 * i, n - i, 0, &pad);
        read_digits(others + 16 * i, n - i, 1, &x);
        add_digits(&x, &pad, 0);
        add_digits(&x, &values, 0);
        reduce_digits127(&x, &words);
        if (n - i >= FEW)
            memcpy(out + 16 * i, &words, sizeof words);
        else
            memcpy(out + 16 * i, &words, (size_t)(n - i) * 16);
        go_down(&sum, &pad, &steps);
    }
    write_lanes(summand, &sum, 1);
}

VECTOR static void add_up_row(const char *pads, const char *corrections, const char *bits, char *out, npy_intp n)
{
    Digits sum = {{0}, {0}}, x, chosen;
    int steps = 0;
    for (npy_intp i = (n - 1) / FEW * FEW; i >= 0; i -= FEW) {
        uint32_t four = 0;
        Pads mask;
        if (n - i >= FEW)
            memcpy(&four, bits + i, FEW);
        else
            memcpy(&four, bits + i, (size_t)(n - i));
        mask = (Pads){four, four, four, four, four, four, four, four} >> (Pads){0, 0, 8, 8, 16, 16, 24, 24};
        mask = -(mask & 1); /* of a bit in each byte, ones for both words of an element */
        read_digits(pads + 16 * i, n - i, 0, &x);
        read_digits(corrections + 16 * i, n - i, 0, &chosen);
        x.lower += chosen.lower & mask;
        x.upper += chosen.upper & mask;
        go_down(&sum, &x, &steps);
    }
    write_lanes(out, &sum, 0);
}

LOOP(f127_offer)
{
    const npy_intp n = dimensions[1];
    if (n < FEW || strides[5] != 16 || strides[6] != 16 || strides[7] != 16)
        return f127_offer_any(context, data, dimensions, strides, aux);
    for (npy_intp o = 0; o < dimensions[0]; o++)
        offer_row(data[0] + o * strides[0], data[1] + o * strides[1], data[2] + o * strides[2],
                  data[3] + o * strides[3], data[4] + o * strides[4], n);
    return 0;
}

LOOP(f127_add_up)
{
    const npy_intp n = dimensions[1];
    if (n < FEW || strides[4] != 16 || strides[5] != 16 || strides[6] != 1)
        return f127_add_up_any(context, data, dimensions, strides, aux);
    for (npy_intp o = 0; o < dimensions[0]; o++)
        add_up_row(data[0] + o * strides[0], data[1] + o * strides[1], data[2] + o * strides[2],
                   data[3] + o * strides[3], n);
    return 0;
}

/* ---- the module --------------------------------------------------------------------------------------------------- */

/* The element of F127 as _twin127.py defines it; set once, when the module is imported. */
static PyArray_Descr *element127;

/*
 * Descriptors of `total` operands: of structures only that of F127 is accepted, and it is taken as it is given, so
 * that neither operands nor `out` are ever cast or buffered.
 */
static NPY_CASTING resolve(int total, PyArray_DTypeMeta *const *dtypes, PyArray_Descr *const *given,
                           PyArray_Descr **chosen)
{
    for (int i = 0; i < total; i++) {
        if (dtypes[i] != &PyArray_VoidDType)
            chosen[i] = PyArray_DescrFromType(dtypes[i]->type_num);
        else if (given[i] == NULL || given[i] == element127 || PyArray_EquivTypes(given[i], element127)) {
            chosen[i] = given[i] == NULL ? element127 : given[i];
            Py_INCREF(chosen[i]);
        }
        else {
            PyErr_SetString(PyExc_TypeError, "an operand is a structure, but not an element of F127");
            while (i-- > 0)
                Py_DECREF(chosen[i]);
            return (NPY_CASTING)-1;
        }
    }
    return NPY_NO_CASTING;
}

#define RESOLVE(total)                                                                                                 \
    static NPY_CASTING resolve##total(struct PyArrayMethodObject_tag *method, PyArray_DTypeMeta *const *dtypes,        \
                                      PyArray_Descr *const *given, PyArray_Descr **chosen, npy_intp *view_offset)      \
    {                                                                                                                  \
        (void)method, (void)view_offset;                                                                               \
        return resolve(total, dtypes, given, chosen);                                                                  \
    }

RESOLVE(2)
RESOLVE(3)
RESOLVE(4)
RESOLVE(5)
RESOLVE(6)

typedef struct {
    const char *name, *signature; /* signature NULL: entry by entry */
    const char *operands;         /* E element, I int64, W uint64, F float64, B uint8; inputs first */
    int inputs;
    Loop *f61, *f127;
} Function;

static const Function functions[] = {
    {"add", NULL, "EEE", 2, f61_add, f127_add},
    {"sub", NULL, "EEE", 2, f61_sub, f127_sub},
    {"mul", NULL, "EEE", 2, f61_mul, f127_mul},
    {"neg", NULL, "EE", 1, f61_neg, f127_neg},
    {"beaver", NULL, "EEEEEE", 5, f61_beaver, f127_beaver},
    {"beaver_lead", NULL, "EEEEEE", 5, f61_beaver_lead, f127_beaver_lead},
    {"scale", NULL, "EIE", 2, f61_scale, f127_scale},
    {"from_int64", NULL, "IE", 1, f61_from_int64, f127_from_int64},
    {"decode_fixed", NULL, "EFF", 2, f61_decode_fixed, f127_decode_fixed},
    {"shift_round", NULL, "EIE", 2, f61_shift_round, f127_shift_round},
    {"residue", NULL, "EII", 2, f61_residue, f127_residue},
    {"encode_fixed", "(n),()->(n),()", "FFEI", 2, f61_encode_fixed, f127_encode_fixed},
    {"to_int64", "(n)->(n),()", "EII", 1, f61_to_int64, f127_to_int64},
    {"noncanonical", "(n)->()", "EI", 1, f61_noncanonical, f127_noncanonical},
    {"low_bits", "(n),()->(n),()", "EIEI", 2, NULL, f127_low_bits},
    {"sum", "(n)->()", "EE", 1, f61_sum, f127_sum},
    {"dot", "(n),(n)->()", "EIE", 2, f61_dot, f127_dot},
    {"matmul", "(n?,k),(k,m?)->(n?,m?)", "EEE", 2, f61_matmul, f127_matmul},
    {"residues", "(n),(q,c)->(q,n)", "EFF", 2, f61_residues, f127_residues},
    {"join", "(q,n),(r,c)->(n)", "FFE", 2, f61_join, f127_join},
    {"offer", "(t),(t),()->(t),()", "EEEEE", 3, f61_offer, f127_offer},
    {"rejected", "(n)->()", "EI", 1, f61_rejected, NULL},
    {"add_up", "(t),(t),(t)->()", "EEBE", 3, f61_add_up, f127_add_up},
    {"prove", "(m,n,w),(n),(n)->(n),(n)", "WEEEE", 3, f61_prove, f127_prove},
    {"hold", "(m,n,w),(n),(k),(n)->(n)", "WEBEE", 4, f61_hold, f127_hold},
    {"evaluate", "(n),(k),(k)->(n)", "EEEE", 3, f61_evaluate, f127_evaluate},
    {"interpolate", "(n),(k),(k)->(n)", "EEEE", 3, f61_interpolate, f127_interpolate},
};

/* Add `prefix_name` to the module; 0, or -1 with an exception set. */
static int add_function(PyObject *module, const Function *function, const char *prefix, PyArray_DTypeMeta *element,
                        Loop *loop)
{
    char name[64];
    PyArray_DTypeMeta *dtypes[6];
    const int total = (int)strlen(function->operands), outputs = total - function->inputs;
    void *const resolvers[] = {NULL, NULL, resolve2, resolve3, resolve4, resolve5, resolve6};
    PyType_Slot slots[] = {{NPY_METH_resolve_descriptors, resolvers[total]}, {NPY_METH_strided_loop, loop}, {0, NULL}};
    PyArrayMethod_Spec spec = {function->name, function->inputs, outputs, NPY_NO_CASTING,
                               NPY_METH_NO_FLOATINGPOINT_ERRORS, dtypes, slots};
    PyObject *ufunc;
    int failed;

    for (int i = 0; i < total; i++)
        dtypes[i] = function->operands[i] == 'E'   ? element
                    : function->operands[i] == 'I' ? &PyArray_Int64DType
                    : function->operands[i] == 'W' ? &PyArray_UInt64DType
                    : function->operands[i] == 'B' ? &PyArray_UInt8DType
                                                   : &PyArray_DoubleDType;
    PyOS_snprintf(name, sizeof name, "%s_%s", prefix, function->name);
    ufunc = PyUFunc_FromFuncAndDataAndSignature(NULL, NULL, NULL, 0, function->inputs, outputs, PyUFunc_None,
                                                function->name, NULL, 0, function->signature);
    if (ufunc == NULL)
        return -1;
    failed = PyUFunc_AddLoopFromSpec(ufunc, &spec) < 0 || PyModule_AddObjectRef(module, name, ufunc) < 0;
    Py_DECREF(ufunc);
    return failed ? -1 : 0;
}

static int execute(PyObject *module)
{
    PyObject *twin, *dtype;

    import_array1(-1);
    import_umath1(-1);
    twin = PyImport_ImportModule("mpc._twin127");
    if (twin == NULL)
        return -1;
    dtype = PyObject_GetAttrString(twin, "DTYPE");
    Py_DECREF(twin);
    if (dtype == NULL)
        return -1;
    if (!PyArray_DescrCheck(dtype) || PyDataType_ELSIZE((PyArray_Descr *)dtype) != 16) {
        Py_DECREF(dtype);
        PyErr_SetString(PyExc_ImportError, "mpc._twin127.DTYPE is not a structure of 16 bytes");
        return -1;
    }
    Py_XSETREF(element127, (PyArray_Descr *)dtype);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        const Function *f = &functions[i];
        if (f->f61 != NULL && add_function(module, f, "f61", &PyArray_UInt64DType, f->f61) < 0)
            return -1;
        if (f->f127 != NULL && add_function(module, f, "f127", &PyArray_VoidDType, f->f127) < 0)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "mpc._kernels",
    .m_doc = "C loops of F61 and F127; see mpc.field.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&definition); }
