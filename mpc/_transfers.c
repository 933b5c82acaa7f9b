/*
 * The loops of oblivious transfer as numpy gufuncs: what stands around AES in mpc.ot.
 *
 * The numpy twin is _twin_transfers.py; one test class runs on both. As in _kernels.c there is no Python logic and no
 * allocation: numpy broadcasts, checks types and core dimensions, allocates and releases the GIL around the loops. No
 * branch and no address depends on an element, but for `route`, which follows a permutation; its twin is in
 * ot/networks.py. What numpy cannot check of a shape, the loop checks itself.
 *
 * Bits are packed least first: bit i of a row is bit i % 64 of word i / 64.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/ndarrayobject.h>
#include <numpy/ufuncobject.h>

#include <stdint.h>
#include <string.h>

#if NPY_BYTE_ORDER != NPY_LITTLE_ENDIAN
#error "the C loops are for little-endian machines; the numpy twin runs on all"
#endif

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#define INLINE static inline __attribute__((always_inline))

/* GCC with glibc compiles these few functions for several instruction sets and picks one when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR
#endif

#define LOOP(name)                                                                                                     \
    static int name(PyArrayMethod_Context *context, char *const *data, const npy_intp *dimensions,                     \
                    const npy_intp *strides, NpyAuxData *aux)

#define UNUSED_ARGUMENTS (void)context, (void)aux

/* Leave a loop, which does not hold the GIL, with an exception. */
static int refuse(const char *message)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyErr_SetString(PyExc_ValueError, message);
    PyGILState_Release(state);
    return -1;
}

INLINE u64 load(const char *at)
{
    u64 x;
    memcpy(&x, at, 8);
    return x;
}

INLINE void store(char *at, u64 x) { memcpy(at, &x, 8); }

/* `count` words that lie `step` bytes apart. */
INLINE void read_words(u64 *to, const char *from, npy_intp count, npy_intp step)
{
    if (step == 8)
        memcpy(to, from, (size_t)count * 8);
    else
        for (npy_intp i = 0; i < count; i++)
            to[i] = load(from + i * step);
}

INLINE void write_words(char *to, const u64 *from, npy_intp count, npy_intp step)
{
    if (step == 8)
        memcpy(to, from, (size_t)count * 8);
    else
        for (npy_intp i = 0; i < count; i++)
            store(to + i * step, from[i]);
}

/* Eight words side by side, which the compiler keeps in whatever vector registers there are. */
typedef u64 Vec __attribute__((vector_size(64)));

enum { VEC = 8 };

/* ---- wide instructions --------------------------------------------------------------------------------------------- */

/* Whether the processor has AVX-512 with carry-less multiplication and products of bit matrices; looked up on import. */
static int wide_here;

#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 9) || (!defined(__clang__) && __GNUC__ >= 9))
#include <cpuid.h>
#include <immintrin.h>

#define WIDE_TARGET target("avx512f,avx512bw,avx512dq,avx512vl,pclmul,vpclmulqdq,gfni")
#define WIDE __attribute__((WIDE_TARGET))
#define WIDE_INLINE static inline __attribute__((always_inline, WIDE_TARGET))

enum { CPU_GFNI = 1 << 8, CPU_VPCLMULQDQ = 1 << 10, BLOCKS = 4 };

static int has_wide(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("pclmul") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & CPU_GFNI) &&
           (c & CPU_VPCLMULQDQ);
}
#else
static int has_wide(void) { return 0; }
#endif

/* ---- bits of 128 rows to 128-bit entries: (128,w)->(w,64,2) ------------------------------------------------------- */

typedef Vec Square[64]; /* VEC matrices of 64 x 64 bits, side by side: a cache line of each row */

/*
 * Exchange bit i of row j with bit j of row i, in six steps: in step s the two off-diagonal squares of side s change
 * places, in every square of side 2s (Warren, Hacker's Delight, section 7-3).
 */
INLINE void transpose_square(Vec *a)
{
    u64 mask = 0xFFFFFFFF;
#pragma GCC unroll 6
    for (int s = 32; s; s >>= 1, mask ^= mask << s)
        for (int j = 0; j < 64; j = ((j | s) + 1) & ~s) {
            const Vec t = (a[j] >> s ^ a[j | s]) & mask;
            a[j | s] ^= t;
            a[j] ^= t << s;
        }
}

/* VEC words of each of 128 rows to VEC * 64 entries of two words. */
VECTOR static void transpose_lanes(Vec *low, Vec *high, u64 *out)
{
    transpose_square(low);
    transpose_square(high);
    for (int l = 0; l < VEC; l++)
        for (int i = 0; i < 64; i++) {
            out[(l * 64 + i) * 2] = ((const u64 *)&low[i])[l];
            out[(l * 64 + i) * 2 + 1] = ((const u64 *)&high[i])[l];
        }
}

#ifdef WIDE
enum { GROUPS = 16, COLUMNS = 8 }; /* rows come in groups of eight, a lane of which has 16 columns of bytes */

/*
 * The same from packed rows, `row` bytes apart. Bytes of eight rows are interleaved to matrices of 8 x 8 bits, each of
 * which is turned around by a product; then bytes of 16 groups are turned around in each lane.
 */
WIDE static void transpose_wide(const char *in, npy_intp row, char *out)
{
    const __m512i identity = _mm512_set1_epi64(0x8040201008040201);
    __m512i turned[COLUMNS][GROUPS];
    for (int g = 0; g < GROUPS; g++) {
        __m512i x[8], y[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) /* the product takes the last byte of a matrix for its first row */
            x[j] = _mm512_loadu_si512(in + (8 * g + 7 - j) * row);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            y[j] = _mm512_unpacklo_epi8(x[2 * j], x[2 * j + 1]);
            y[4 + j] = _mm512_unpackhi_epi8(x[2 * j], x[2 * j + 1]);
        }
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m512i *from = y + 4 * half;
            __m512i *to = x + 4 * half;
            to[0] = _mm512_unpacklo_epi16(from[0], from[1]);
            to[1] = _mm512_unpacklo_epi16(from[2], from[3]);
            to[2] = _mm512_unpackhi_epi16(from[0], from[1]);
            to[3] = _mm512_unpackhi_epi16(from[2], from[3]);
        }
#pragma GCC unroll 4
        for (int m = 0; m < 4; m++) {
            const __m512i low = _mm512_unpacklo_epi32(x[2 * m], x[2 * m + 1]);
            const __m512i high = _mm512_unpackhi_epi32(x[2 * m], x[2 * m + 1]);
            turned[2 * m][g] = _mm512_gf2p8affine_epi64_epi8(identity, low, 0);
            turned[2 * m + 1][g] = _mm512_gf2p8affine_epi64_epi8(identity, high, 0);
        }
    }
    for (int m = 0; m < COLUMNS; m++) {
        __m512i x[GROUPS], y[GROUPS];
        memcpy(x, turned[m], sizeof x);
#pragma GCC unroll 2
        for (int twice = 0; twice < 2; twice++) { /* four times each row of bytes takes turns with the eighth after it */
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                y[2 * j] = _mm512_unpacklo_epi8(x[j], x[8 + j]);
                y[2 * j + 1] = _mm512_unpackhi_epi8(x[j], x[8 + j]);
            }
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                x[2 * j] = _mm512_unpacklo_epi8(y[j], y[8 + j]);
                x[2 * j + 1] = _mm512_unpackhi_epi8(y[j], y[8 + j]);
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < GROUPS; i += 4) { /* lane l of entry i is the entry 128 l + 16 m + i */
            const __m512i a = _mm512_shuffle_i64x2(x[i], x[i + 1], 0x44), b = _mm512_shuffle_i64x2(x[i], x[i + 1], 0xEE);
            const __m512i c = _mm512_shuffle_i64x2(x[i + 2], x[i + 3], 0x44);
            const __m512i d = _mm512_shuffle_i64x2(x[i + 2], x[i + 3], 0xEE);
            char *to = out + 16 * (16 * m + i);
            _mm512_storeu_si512(to, _mm512_shuffle_i64x2(a, c, 0x88));
            _mm512_storeu_si512(to + 128 * 16, _mm512_shuffle_i64x2(a, c, 0xDD));
            _mm512_storeu_si512(to + 256 * 16, _mm512_shuffle_i64x2(b, d, 0x88));
            _mm512_storeu_si512(to + 384 * 16, _mm512_shuffle_i64x2(b, d, 0xDD));
        }
    }
}
#else
static void transpose_wide(const char *in, npy_intp row, char *out) { (void)in, (void)row, (void)out; }
#endif

LOOP(transpose)
{
    const npy_intp words = dimensions[2], row = strides[2], step = strides[3]; /* dimensions: outer, 128, w, 64, 2 */
    const npy_intp out_word = strides[4], out_entry = strides[5], out_half = strides[6];
    const int packed = out_word == 64 * 16 && out_entry == 16 && out_half == 8;
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp w = 0; w < words; w += VEC) {
            const npy_intp count = words - w < VEC ? words - w : VEC;
            const char *in = data[0] + o * strides[0] + w * step;
            char *out = data[1] + o * strides[1] + w * out_word;
            Square low, high;
            u64 entries[VEC * 64 * 2];
            if (wide_here && packed && count == VEC && step == 8) {
                transpose_wide(in, row, out);
                continue;
            }
            if (count < VEC) {
                memset(low, 0, sizeof low);
                memset(high, 0, sizeof high);
            }
            for (int j = 0; j < 64; j++)
                if (count == VEC && step == 8) { /* of a size that is known, without a call */
                    memcpy(&low[j], in + j * row, sizeof low[j]);
                    memcpy(&high[j], in + (64 + j) * row, sizeof high[j]);
                }
                else {
                    read_words((u64 *)&low[j], in + j * row, count, step);
                    read_words((u64 *)&high[j], in + (64 + j) * row, count, step);
                }
            if (packed && count == VEC && (uintptr_t)out % 8 == 0) {
                transpose_lanes(low, high, (u64 *)out);
                continue;
            }
            transpose_lanes(low, high, entries);
            for (npy_intp l = 0; l < count; l++)
                for (npy_intp i = 0; i < 64; i++)
                    write_words(out + l * out_word + i * out_entry, entries + (l * 64 + i) * 2, 2, out_half);
        }
    return 0;
}

/* ---- sums over the leaves of a tree: (m,w)->(w),(k,w), m = 2^k ----------------------------------------------------- */

enum { LANE_VECS = 4, LANE = LANE_VECS * VEC, MOST_DEPTH = 8, MOST_PAIRS = 1 << (MOST_DEPTH - 1) };

typedef Vec Lane[LANE_VECS];

/*
 * a[0] becomes the sum of all leaves, bits[b] the sum of the leaves whose number has bit b: pairs of leaves, which
 * differ in the lowest bit that is left, are added up, level by level; 2 (m - 1) additions in all. Here are the levels
 * above the first: a holds the sums of the pairs of leaves.
 */
VECTOR static void fold_lane(Lane *a, int depth, Lane *bits)
{
    for (int b = 1; b < depth; b++) {
        Lane sum = {{0}};
        for (int y = 0; y < 1 << (depth - b - 1); y++)
            for (int v = 0; v < LANE_VECS; v++) {
                const Vec odd = a[2 * y + 1][v];
                sum[v] ^= odd;
                a[y][v] = a[2 * y][v] ^ odd;
            }
        memcpy(bits[b], sum, sizeof sum);
    }
}

/* The first level, from packed rows. */
VECTOR static void fold_pairs(const char *in, npy_intp leaf, Lane *a, npy_intp pairs, Lane *bits)
{
    Lane sum = {{0}};
    for (npy_intp y = 0; y < pairs; y++, in += 2 * leaf) {
        Lane even, odd;
        memcpy(even, in, sizeof even);
        memcpy(odd, in + leaf, sizeof odd);
        for (int v = 0; v < LANE_VECS; v++) {
            sum[v] ^= odd[v];
            a[y][v] = even[v] ^ odd[v];
        }
    }
    memcpy(bits[0], sum, sizeof sum);
}

INLINE void write_lane(char *to, const Vec *from, npy_intp count, npy_intp step)
{
    if (step == 8 && count == LANE)
        memcpy(to, from, sizeof(Lane));
    else
        write_words(to, (const u64 *)from, count, step);
}

enum { USUAL = 4, USUAL_LEAVES = 1 << USUAL }; /* a depth whose leaves are all in registers */

/* Packed rows of a tree of this depth, so many times VEC words. */
VECTOR static void fold_usual(const char *in, npy_intp leaf, char *total, char *bits, npy_intp bit, npy_intp vecs)
{
    for (npy_intp v = 0; v < vecs; v++) {
        Vec x[USUAL_LEAVES];
#pragma GCC unroll 16
        for (int y = 0; y < USUAL_LEAVES; y++)
            memcpy(&x[y], in + y * leaf + v * (npy_intp)sizeof(Vec), sizeof x[y]);
#pragma GCC unroll 4
        for (int b = 0; b < USUAL; b++) {
            Vec sum = x[1];
#pragma GCC unroll 8
            for (int y = 1; y < USUAL_LEAVES >> (b + 1); y++)
                sum ^= x[2 * y + 1];
            memcpy(bits + b * bit + v * (npy_intp)sizeof(Vec), &sum, sizeof sum);
#pragma GCC unroll 8
            for (int y = 0; y < USUAL_LEAVES >> (b + 1); y++)
                x[y] = x[2 * y] ^ x[2 * y + 1];
        }
        memcpy(total + v * (npy_intp)sizeof(Vec), &x[0], sizeof x[0]);
    }
}

LOOP(fold)
{
    const npy_intp leaves = dimensions[1], words = dimensions[2], depth = dimensions[3];
    const npy_intp leaf = strides[3], step = strides[4], total_step = strides[5], bit = strides[6], bit_step = strides[7];
    UNUSED_ARGUMENTS;
    if (depth < 1 || depth > MOST_DEPTH || leaves != (npy_intp)1 << depth)
        return refuse("fold takes 2^k rows of leaves to k rows of sums, k from 1 to 8");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        npy_intp done = 0;
        if (depth == USUAL && words >= VEC && step == 8 && total_step == 8 && bit_step == 8) {
            fold_usual(data[0] + o * strides[0], leaf, data[1] + o * strides[1], data[2] + o * strides[2], bit,
                       words / VEC);
            done = words / VEC * VEC;
        }
        for (npy_intp w = done; w < words; w += LANE) {
            const npy_intp count = words - w < LANE ? words - w : LANE;
            const char *in = data[0] + o * strides[0] + w * step;
            Lane a[MOST_PAIRS], bits[MOST_DEPTH];
            if (step == 8 && count == LANE)
                fold_pairs(in, leaf, a, leaves / 2, bits);
            else {
                memset(bits[0], 0, sizeof bits[0]);
                for (npy_intp y = 0; y < leaves / 2; y++) {
                    Lane pair[2] = {{{0}}};
                    read_words((u64 *)pair[0], in + 2 * y * leaf, count, step);
                    read_words((u64 *)pair[1], in + (2 * y + 1) * leaf, count, step);
                    for (int v = 0; v < LANE_VECS; v++) {
                        bits[0][v] ^= pair[1][v];
                        a[y][v] = pair[0][v] ^ pair[1][v];
                    }
                }
            }
            fold_lane(a, (int)depth, bits);
            write_lane(data[1] + o * strides[1] + w * total_step, a[0], count, total_step);
            for (npy_intp b = 0; b < depth; b++)
                write_lane(data[2] + o * strides[2] + b * bit + w * bit_step, bits[b], count, bit_step);
        }
    }
    return 0;
}

/* ---- corrections: (w),(k),(k,w)->(k,w) ----------------------------------------------------------------------------- */

/* out = x ^ (row & mask); the arrays are apart, or out is x. */
VECTOR static void add_masked(const char *row, u64 mask, const char *x, char *out, npy_intp words)
{
    npy_intp w = 0;
    for (; w + VEC <= words; w += VEC) {
        Vec r, v;
        memcpy(&r, row + 8 * w, sizeof r);
        memcpy(&v, x + 8 * w, sizeof v);
        v ^= r & mask;
        memcpy(out + 8 * w, &v, sizeof v);
    }
    for (; w < words; w++)
        store(out + 8 * w, load(x + 8 * w) ^ (load(row + 8 * w) & mask));
}

/* x + row * mask for every mask, of ones or zeros. */
LOOP(correct)
{
    const npy_intp words = dimensions[1], depth = dimensions[2];
    const npy_intp row_step = strides[4], mask_step = strides[5], x_bit = strides[6], x_step = strides[7];
    const npy_intp out_bit = strides[8], out_step = strides[9];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp b = 0; b < depth; b++) {
            const char *row = data[0] + o * strides[0], *x = data[2] + o * strides[2] + b * x_bit;
            char *out = data[3] + o * strides[3] + b * out_bit;
            const u64 mask = load(data[1] + o * strides[1] + b * mask_step);
            if (row_step == 8 && x_step == 8 && out_step == 8)
                add_masked(row, mask, x, out, words);
            else
                for (npy_intp w = 0; w < words; w++)
                    store(out + w * out_step, load(x + w * x_step) ^ (load(row + w * row_step) & mask));
        }
    return 0;
}

/* ---- what the hash does around AES: (n,2),(),(),(b)->(n,b,2) and (n,2),(n,b,2)->(n,b,2) ---------------------------- */

/* The same for one block each and numbers that follow one another, from and to packed arrays: four entries at a time. */
VECTOR static void spread_one(const char *x, u64 first, u64 block, char *out, npy_intp n)
{
    const Vec even = {~(u64)0, 0, ~(u64)0, 0, ~(u64)0, 0, ~(u64)0, 0};
    Vec index = {0, 0, 1, 1, 2, 2, 3, 3};
    npy_intp i = 0;
    index += first;
    for (; i + VEC / 2 <= n; i += VEC / 2, index += VEC / 2) {
        Vec v;
        memcpy(&v, x + 16 * i, sizeof v);
        v ^= ((index << 32 | block) & even) | (index >> 32 & ~even);
        memcpy(out + 16 * i, &v, sizeof v);
    }
    for (; i < n; i++) {
        const u64 last = first + (u64)i;
        store(out + 16 * i, load(x + 16 * i) ^ (last << 32 | block));
        store(out + 16 * i + 8, load(x + 16 * i + 8) ^ last >> 32);
    }
}

/* Key n + ((first + step * n) * 2^32 + block), for each block, a number of 32 bits. */
LOOP(spread)
{
    const npy_intp n = dimensions[1], blocks = dimensions[3]; /* dimensions: outer, n, 2, b */
    const npy_intp entry = strides[5], word = strides[6], block_step = strides[7];
    const npy_intp out_entry = strides[8], out_block = strides[9], out_word = strides[10];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const u64 first = load(data[1] + o * strides[1]), step = load(data[2] + o * strides[2]);
        if (blocks == 1 && step == 1 && entry == 16 && word == 8 && out_entry == 16 && out_word == 8) {
            const u64 block = load(data[3] + o * strides[3]) & 0xFFFFFFFF;
            spread_one(data[0] + o * strides[0], first, block, data[4] + o * strides[4], n);
            continue;
        }
        for (npy_intp i = 0; i < n; i++) {
            const char *x = data[0] + o * strides[0] + i * entry, *block = data[3] + o * strides[3];
            char *out = data[4] + o * strides[4] + i * out_entry;
            const u64 index = first + step * (u64)i, low = load(x) ^ index << 32, high = load(x + word) ^ index >> 32;
            for (npy_intp b = 0; b < blocks; b++, out += out_block, block += block_step) {
                store(out, low ^ (load(block) & 0xFFFFFFFF));
                store(out + out_word, high);
            }
        }
    }
    return 0;
}

/* Key n + each of its blocks. */
LOOP(gather)
{
    const npy_intp n = dimensions[1], blocks = dimensions[3]; /* dimensions: outer, n, 2, b */
    const npy_intp entry = strides[3], word = strides[4];
    const npy_intp in_entry = strides[5], in_block = strides[6], in_word = strides[7];
    const npy_intp out_entry = strides[8], out_block = strides[9], out_word = strides[10];
    const int packed = word == 8 && in_word == 8 && out_word == 8 && entry == 16 && in_entry == 16 && out_entry == 16;
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        if (blocks == 1 && packed) {
            const char *x = data[0] + o * strides[0], *in = data[1] + o * strides[1];
            add_masked(x, ~(u64)0, in, data[2] + o * strides[2], 2 * n);
            continue;
        }
        for (npy_intp i = 0; i < n; i++) {
            const char *x = data[0] + o * strides[0] + i * entry, *in = data[1] + o * strides[1] + i * in_entry;
            char *out = data[2] + o * strides[2] + i * out_entry;
            const u64 low = load(x), high = load(x + word);
            for (npy_intp b = 0; b < blocks; b++, in += in_block, out += out_block) {
                const u64 in_low = load(in), in_high = load(in + in_word); /* out may be in */
                store(out, low ^ in_low);
                store(out + out_word, high ^ in_high);
            }
        }
    }
    return 0;
}

/* ---- both keys of a transfer, in the order that the chooser asks for: (n,2),(b),(2)->(2,n,2), b = ceil(n / 8) ------ */

typedef u64 Entry __attribute__((vector_size(16)));

LOOP(both)
{
    const npy_intp n = dimensions[1], bytes = dimensions[3]; /* dimensions: outer, n, 2, b */
    UNUSED_ARGUMENTS;
    if (bytes != (n + 7) / 8)
        return refuse("both takes a bit for each entry, eight in a byte");
    if ((n > 1 && (strides[4] != 16 || strides[9] != 16)) || (bytes > 1 && strides[6] != 1) ||
        (n > 0 && (strides[5] != 8 || strides[10] != 8)))
        return refuse("both takes arrays in one piece");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const char *keys = data[0] + o * strides[0], *words = data[2] + o * strides[2];
        const u8 *flips = (const u8 *)data[1] + o * strides[1];
        const Entry delta = {load(words), load(words + strides[7])};
        char *zero = data[3] + o * strides[3], *one = zero + strides[8];
        for (npy_intp i = 0; i < n; i++) {
            Entry key; /* entries of 16 bytes are aligned, wider vectors of them are not */
            memcpy(&key, keys + 16 * i, sizeof key);
            key ^= delta & -(u64)(flips[i / 8] >> i % 8 & 1);
            memcpy(zero + 16 * i, &key, sizeof key);
            key ^= delta;
            memcpy(one + 16 * i, &key, sizeof key);
        }
    }
    return 0;
}

/* ---- back to rows: (w,64,2)->(128,w), the inverse of transpose ----------------------------------------------------- */

/* VEC * 64 entries of two words to VEC words of each of 128 rows. */
VECTOR static void restore_lanes(const u64 *in, Vec *low, Vec *high)
{
    for (int l = 0; l < VEC; l++)
        for (int i = 0; i < 64; i++) {
            ((u64 *)&low[i])[l] = in[(l * 64 + i) * 2];
            ((u64 *)&high[i])[l] = in[(l * 64 + i) * 2 + 1];
        }
    transpose_square(low);
    transpose_square(high);
}

LOOP(restore)
{
    const npy_intp words = dimensions[1]; /* dimensions: outer, w, 64, 2, 128 */
    const npy_intp in_word = strides[2], in_entry = strides[3], in_half = strides[4], row = strides[5], step = strides[6];
    const int packed = in_word == 64 * 16 && in_entry == 16 && in_half == 8;
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp w = 0; w < words; w += VEC) {
            const npy_intp count = words - w < VEC ? words - w : VEC;
            const char *in = data[0] + o * strides[0] + w * in_word;
            char *out = data[1] + o * strides[1] + w * step;
            Square low, high;
            u64 entries[VEC * 64 * 2];
            if (packed && count == VEC && (uintptr_t)in % 8 == 0)
                restore_lanes((const u64 *)in, low, high);
            else {
                memset(entries, 0, sizeof entries);
                for (npy_intp l = 0; l < count; l++)
                    for (npy_intp i = 0; i < 64; i++)
                        read_words(entries + (l * 64 + i) * 2, in + l * in_word + i * in_entry, 2, in_half);
                restore_lanes(entries, low, high);
            }
            for (int j = 0; j < 64; j++) {
                write_words(out + j * row, (const u64 *)&low[j], count, step);
                write_words(out + (64 + j) * row, (const u64 *)&high[j], count, step);
            }
        }
    return 0;
}

/* ---- rows as polynomials over GF(2^128), at public points: (w),(2)->(2) and (w,64,2),(p,2)->(p,128,2) --------------- */

/*
 * Every two words of a row are a coefficient, that of the highest power first; bit i of it is x^i modulo
 * x^128 + x^7 + x^2 + x + 1. Coefficients are secret; branches and addresses depend on points alone.
 */

enum { REDUCTION = 0x87, NIBBLES = 32, NIBBLE_VALUES = 16, POWERS = VEC / 2, MOST_POINTS = 2 };

/* The powers of a point, from the first one, and whether there is an instruction for carry-less multiplication. */
typedef struct {
    u64 powers[POWERS][2];
    int carryless;
} Point;

/* a = a * w for a public w: a times every polynomial of four bits, of which each four bits of w choose one. */
static void times(u64 *a, const u64 *w)
{
    u64 multiples[NIBBLE_VALUES][2] = {{0}}, low = 0, high = 0;
    memcpy(multiples[1], a, sizeof multiples[1]);
    for (int n = 2; n < NIBBLE_VALUES; n++) {
        const u64 *half = multiples[n / 2], odd = n % 2;
        multiples[n][0] = (half[0] << 1) ^ (REDUCTION & -(half[1] >> 63)) ^ (a[0] & -odd);
        multiples[n][1] = (half[1] << 1 | half[0] >> 63) ^ (a[1] & -odd);
    }
    for (int n = NIBBLES - 1; n >= 0; n--) {
        const u64 *chosen = multiples[w[n / 16] >> 4 * (n % 16) & 15], out = high >> 60;
        high = (high << 4 | low >> 60) ^ chosen[1];
        low = low << 4 ^ out ^ out << 1 ^ out << 2 ^ out << 7 ^ chosen[0];
    }
    a[0] = low;
    a[1] = high;
}

static Point point_of(const char *at, npy_intp step, int carryless)
{
    Point point;
    point.carryless = carryless;
    read_words(point.powers[0], at, 2, step);
    for (int n = 1; n < POWERS; n++) {
        memcpy(point.powers[n], point.powers[n - 1], sizeof point.powers[n]);
        times(point.powers[n], point.powers[0]);
    }
    return point;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define HAS_CARRYLESS __builtin_cpu_supports("pclmul")
#define CARRYLESS __attribute__((target("pclmul")))

/* Twice 128 bits, and 128 that lie across their middle, not yet added up. */
typedef struct {
    __m128i low, middle, high;
} Product;

CARRYLESS static inline Product add_product(Product sum, __m128i a, __m128i b)
{
    sum.low = _mm_xor_si128(sum.low, _mm_clmulepi64_si128(a, b, 0x00));
    sum.middle = _mm_xor_si128(sum.middle, _mm_clmulepi64_si128(a, b, 0x01));
    sum.middle = _mm_xor_si128(sum.middle, _mm_clmulepi64_si128(a, b, 0x10));
    sum.high = _mm_xor_si128(sum.high, _mm_clmulepi64_si128(a, b, 0x11));
    return sum;
}

/* x^128 is x^7 + x^2 + x + 1: first for the upper, then for the lower half of what is too high. */
CARRYLESS static inline __m128i reduce(Product sum)
{
    const __m128i reduction = _mm_set_epi64x(0, REDUCTION);
    __m128i low = _mm_xor_si128(sum.low, _mm_slli_si128(sum.middle, 8));
    __m128i high = _mm_xor_si128(sum.high, _mm_srli_si128(sum.middle, 8));
    const __m128i upper = _mm_clmulepi64_si128(high, reduction, 0x01);
    low = _mm_xor_si128(low, _mm_slli_si128(upper, 8));
    high = _mm_xor_si128(high, _mm_srli_si128(upper, 8));
    return _mm_xor_si128(low, _mm_clmulepi64_si128(high, reduction, 0x00));
}

/* Four coefficients at a time, whose products are reduced together. */
CARRYLESS static inline void go_on_carryless(const Point *point, const char *row, npy_intp blocks, u64 *sum)
{
    const Product zero = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    const __m128i *at = (const __m128i *)row;
    __m128i found = _mm_loadu_si128((const __m128i *)sum), powers[POWERS];
    for (int n = 0; n < POWERS; n++)
        powers[n] = _mm_loadu_si128((const __m128i *)point->powers[n]);
    for (; blocks % POWERS; blocks--)
        found = _mm_xor_si128(reduce(add_product(zero, found, powers[0])), _mm_loadu_si128(at++));
    for (; blocks; blocks -= POWERS, at += POWERS) {
        Product total = zero;
        total.low = _mm_loadu_si128(at + POWERS - 1);
        for (int n = 0; n < POWERS - 1; n++)
            total = add_product(total, _mm_loadu_si128(at + n), powers[POWERS - 2 - n]);
        found = reduce(add_product(total, found, powers[POWERS - 1]));
    }
    _mm_storeu_si128((__m128i *)sum, found);
}

CARRYLESS static void add_rows_carryless(const Point *point, const Vec *rows, u64 (*sums)[2])
{
    for (int j = 0; j < 64; j++)
        go_on_carryless(point, (const char *)&rows[j], POWERS, sums[j]);
}

CARRYLESS static void add_row_carryless(const Point *point, const char *row, npy_intp blocks, u64 *sum)
{
    go_on_carryless(point, row, blocks, sum);
}
#else
#define HAS_CARRYLESS 0
#define add_rows_carryless add_rows
#define add_row_carryless add_row
static void add_rows(const Point *point, const Vec *rows, u64 (*sums)[2]);
static void add_row(const Point *point, const char *row, npy_intp blocks, u64 *sum);
#endif

/* Horner's rule, from a sum on, over packed words. */
static void add_row(const Point *point, const char *row, npy_intp blocks, u64 *sum)
{
    if (point->carryless) {
        add_row_carryless(point, row, blocks, sum);
        return;
    }
    for (npy_intp b = 0; b < blocks; b++) {
        times(sum, point->powers[0]);
        sum[0] ^= load(row + 16 * b);
        sum[1] ^= load(row + 16 * b + 8);
    }
}

/* The same for 64 rows of VEC words. */
static void add_rows(const Point *point, const Vec *rows, u64 (*sums)[2])
{
    if (point->carryless) {
        add_rows_carryless(point, rows, sums);
        return;
    }
    for (int j = 0; j < 64; j++)
        add_row(point, (const char *)&rows[j], VEC / 2, sums[j]);
}

INLINE int evaluate_by(int carryless, char *const *data, const npy_intp *dimensions, const npy_intp *strides)
{
    const npy_intp words = dimensions[1]; /* dimensions: outer, w, 2 */
    Point point;
    if (words % 2)
        return refuse("evaluate takes rows of blocks of two words");
    if (words > 1 && strides[3] != 8)
        return refuse("evaluate takes rows in one piece");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        u64 sum[2] = {0};
        if (o == 0 || strides[1])
            point = point_of(data[1] + o * strides[1], strides[4], carryless);
        add_row(&point, data[0] + o * strides[0], words / 2, sum);
        write_words(data[2] + o * strides[2], sum, 2, strides[5]);
    }
    return 0;
}

/* The same for the rows that entries come from. */
INLINE int combine_by(int carryless, char *const *data, const npy_intp *dimensions, const npy_intp *strides)
{
    const npy_intp words = dimensions[1], points = dimensions[4]; /* dimensions: outer, w, 64, 2, p, 128 */
    if (words % 2 || points > MOST_POINTS)
        return refuse("combine takes blocks of 128 entries and at most two points");
    if (words && (strides[3] != 64 * 16 || strides[4] != 16 || strides[5] != 8))
        return refuse("combine takes entries in one piece");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const char *in = data[0] + o * strides[0];
        Point point[MOST_POINTS];
        u64 sums[MOST_POINTS][128][2] = {{{0}}};
        for (npy_intp p = 0; p < points; p++)
            point[p] = point_of(data[1] + o * strides[1] + p * strides[6], strides[7], carryless);
        for (npy_intp left = words, count; left; left -= count, in += count * 64 * 16) {
            Square low, high;
            u64 entries[VEC * 64 * 2]; /* in front of the first ones zeros, which change nothing */
            count = left % VEC ? left % VEC : VEC;
            memset(entries, 0, (size_t)(VEC - count) * 64 * 16);
            memcpy(entries + (VEC - count) * 64 * 2, in, (size_t)count * 64 * 16);
            restore_lanes(entries, low, high);
            for (npy_intp p = 0; p < points; p++) {
                add_rows(&point[p], low, sums[p]);
                add_rows(&point[p], high, sums[p] + 64);
            }
        }
        for (npy_intp p = 0; p < points; p++)
            for (int j = 0; j < 128; j++)
                write_words(data[2] + o * strides[2] + p * strides[8] + j * strides[9], sums[p][j], 2, strides[10]);
    }
    return 0;
}

LOOP(combine)
{
    UNUSED_ARGUMENTS;
    return combine_by(HAS_CARRYLESS, data, dimensions, strides);
}

/* What machines without such an instruction run, for tests. */
LOOP(evaluate_portable)
{
    UNUSED_ARGUMENTS;
    return evaluate_by(0, data, dimensions, strides);
}

LOOP(combine_portable)
{
    UNUSED_ARGUMENTS;
    return combine_by(0, data, dimensions, strides);
}

/* ---- the same, sixteen coefficients at a time ----------------------------------------------------------------------- */

#ifdef WIDE
enum { WIDE_POWERS = 4, GROUP = BLOCKS * WIDE_POWERS };

typedef struct {
    __m512i low, middle, high;
} WideProduct;

WIDE_INLINE void add_wide(WideProduct *sum, __m512i a, __m512i b)
{
    sum->low = _mm512_xor_si512(sum->low, _mm512_clmulepi64_epi128(a, b, 0x00));
    sum->middle = _mm512_ternarylogic_epi64(sum->middle, _mm512_clmulepi64_epi128(a, b, 0x01),
                                            _mm512_clmulepi64_epi128(a, b, 0x10), 0x96);
    sum->high = _mm512_xor_si512(sum->high, _mm512_clmulepi64_epi128(a, b, 0x11));
}

WIDE_INLINE __m512i reduce_wide(WideProduct sum)
{
    const __m512i reduction = _mm512_broadcast_i32x4(_mm_set_epi64x(0, REDUCTION));
    __m512i low = _mm512_xor_si512(sum.low, _mm512_bslli_epi128(sum.middle, 8));
    __m512i high = _mm512_xor_si512(sum.high, _mm512_bsrli_epi128(sum.middle, 8));
    const __m512i upper = _mm512_clmulepi64_epi128(high, reduction, 0x01);
    low = _mm512_xor_si512(low, _mm512_bslli_epi128(upper, 8));
    high = _mm512_xor_si512(high, _mm512_bsrli_epi128(upper, 8));
    return _mm512_xor_si512(low, _mm512_clmulepi64_epi128(high, reduction, 0x00));
}

/* Powers 4, 8, 12 and 16 of a point, whose first four there are. */
WIDE static void wide_powers(const Point *point, __m512i *powers)
{
    u64 power[2];
    memcpy(power, point->powers[POWERS - 1], sizeof power);
    for (int n = 0; n < WIDE_POWERS; n++) {
        powers[n] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)power));
        times(power, point->powers[POWERS - 1]);
    }
}

/* Each lane takes every fourth coefficient, of a multiple of 16, and goes up by the fourth power; the last has the sum. */
WIDE static void go_on_wide(const Point *point, const __m512i *powers, const char *row, npy_intp blocks, u64 *sum)
{
    __m512i found = _mm512_zextsi128_si512(_mm_loadu_si128((const __m128i *)sum));
    u64 lanes[BLOCKS][2];
    found = _mm512_shuffle_i64x2(found, found, 0x15); /* to lane 3, zeros to the others */
    for (; blocks; blocks -= GROUP, row += 16 * GROUP) {
        WideProduct total = {_mm512_loadu_si512(row + 64 * (WIDE_POWERS - 1)), _mm512_setzero_si512(),
                             _mm512_setzero_si512()};
        add_wide(&total, found, powers[WIDE_POWERS - 1]);
        for (int n = 0; n < WIDE_POWERS - 1; n++)
            add_wide(&total, _mm512_loadu_si512(row + 64 * n), powers[WIDE_POWERS - 2 - n]);
        found = reduce_wide(total);
    }
    memcpy(lanes, &found, sizeof lanes);
    sum[0] = sum[1] = 0;
    add_row_carryless(point, (const char *)lanes, BLOCKS, sum);
}

/* As evaluate_by, for rows that it takes. */
WIDE static void evaluate_wide(char *const *data, const npy_intp *dimensions, const npy_intp *strides)
{
    const npy_intp words = dimensions[1]; /* dimensions: outer, w, 2 */
    __m512i powers[WIDE_POWERS];
    Point point;
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const char *row = data[0] + o * strides[0];
        const npy_intp rest = words / 2 % GROUP, whole = words / 2 - rest;
        u64 sum[2] = {0};
        if (o == 0 || strides[1]) {
            point = point_of(data[1] + o * strides[1], strides[4], 1);
            wide_powers(&point, powers);
        }
        add_row_carryless(&point, row, rest, sum);
        if (whole)
            go_on_wide(&point, powers, row + 16 * rest, whole, sum);
        write_words(data[2] + o * strides[2], sum, 2, strides[5]);
    }
}
#else
static void evaluate_wide(char *const *data, const npy_intp *dimensions, const npy_intp *strides)
{
    (void)data, (void)dimensions, (void)strides;
}
#endif

/* Rows as polynomials, in the fastest way that there is here. */
LOOP(evaluate)
{
    UNUSED_ARGUMENTS;
    if (!wide_here || dimensions[1] % 2 || (dimensions[1] > 1 && strides[3] != 8))
        return evaluate_by(HAS_CARRYLESS, data, dimensions, strides);
    evaluate_wide(data, dimensions, strides);
    return 0;
}

/* ---- setting the switches of a permutation network: (n)->(4,n),(s) -------------------------------------------------- */

#define NOBODY UINT32_MAX

/* A network: output o shows input source[o], and input i is shown at output[i]. */
typedef struct {
    u32 *source, *output;
} Wiring;

/*
 * Set the outer switches of a network of `rows` wires, at least 1, and find what its halves, of (rows + 1) / 2 and
 * rows / 2 wires, must do. Switch k of a layer is at k * stride: one for each pair of inputs, and one for each pair of
 * outputs but the last, which goes straight. One step for each pair of outputs, whatever the permutation.
 */
static void route_outer(Wiring all, u32 rows, Wiring even, Wiring odd, u8 *input, u8 *output, size_t stride)
{
    const u32 pairs = rows / 2 + rows % 2;

    for (u32 pair = 0; pair < pairs; pair++)
        even.source[pair] = NOBODY;
    for (u32 pair = pairs; pair-- > 0;) {
        u32 o = 2 * pair;
        if (even.source[pair] != NOBODY)
            continue; /* on a cycle that has been followed */
        do {
            /* Output o is fed by the even half, so the input that it shows goes there. */
            u32 i = all.source[o];
            even.source[o / 2] = i / 2;
            even.output[i / 2] = o / 2;
            if (i == rows - 1 && i % 2 == 0)
                break; /* a wire without a partner, at the end of the way that begins with the last output */
            input[i / 2 * stride] = i % 2;
            /* The partner of the input goes to the odd half, so the output that shows it is fed from there. */
            i ^= 1;
            o = all.output[i];
            odd.source[o / 2] = i / 2;
            odd.output[i / 2] = o / 2;
            if (o / 2 < pairs - 1)
                output[o / 2 * stride] = o % 2 == 0;
            o ^= 1;
        } while (o / 2 != pair);
    }
}

/* How many numbers below the limit do not have the bit. */
static size_t without_bit(size_t limit, size_t bit)
{
    const size_t rest = limit % (2 * bit);
    return limit / (2 * bit) * bit + (rest < bit ? rest : bit);
}

/* `now` is a permutation of so many rows; both wirings have room for as many. */
static void route_all(Wiring now, Wiring next, u32 rows, u8 *bits, u8 *end)
{
    for (size_t stride = 1; stride < rows; stride *= 2) {
        const Wiring swap = now;
        u32 at = 0, residue = 0;

        if (2 * stride < rows)
            end -= without_bit(rows - 2 * stride, stride); /* output layers come in the opposite order */
        for (size_t k = 0; k < stride; k++) {
            /* The network of a residue class modulo the stride; the halves of each network lie side by side. */
            const u32 size = (u32)((rows - residue + stride - 1) / stride), half = size / 2 + size % 2;
            const Wiring all = {now.source + at, now.output + at};
            const Wiring even = {next.source + at, next.output + at};
            const Wiring odd = {next.source + at + half, next.output + at + half};
            u32 bit = (u32)(stride / 2);

            route_outer(all, size, even, odd, bits + residue, end + residue, stride);
            at += size;
            while (residue & bit) { /* count on in reversed order of the bits */
                residue ^= bit;
                bit /= 2;
            }
            residue |= bit;
        }
        bits += without_bit(rows - stride, stride);
        now = next;
        next = swap;
    }
}

/* The permutation of the rows; at scratch is room for four of them, behind it for all switches. */
LOOP(route)
{
    const npy_intp rows = dimensions[1], switches = dimensions[3]; /* dimensions: outer, n, 4, s */
    npy_intp levels = 0;
    UNUSED_ARGUMENTS;
    while ((npy_intp)1 << levels < rows && levels < 32)
        levels++;
    if (rows < 1 || levels > 31 || switches != rows * levels - ((npy_intp)1 << levels) + 1)
        return refuse("route takes 1 to 2^31 rows and has as many bits as there are switches");
    if (rows > 1 && (strides[4] != rows * 4 || strides[5] != 4 || (switches > 1 && strides[6] != 1)))
        return refuse("route takes arrays in one piece");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        u32 *scratch = (u32 *)(data[1] + o * strides[1]);
        u8 *bits = (u8 *)(data[2] + o * strides[2]);
        const Wiring now = {scratch, scratch + rows}, next = {scratch + 2 * rows, scratch + 3 * rows};

        for (npy_intp i = 0; i < rows; i++)
            now.output[i] = NOBODY;
        for (npy_intp l = 0; l < rows; l++) {
            u32 i;
            memcpy(&i, data[0] + o * strides[0] + l * strides[3], 4);
            if (i >= rows || now.output[i] != NOBODY)
                return refuse("not a permutation");
            now.source[l] = i;
            now.output[i] = (u32)l;
        }
        route_all(now, next, (u32)rows, bits, bits + switches);
    }
    return 0;
}

/* ---- the module --------------------------------------------------------------------------------------------------- */

enum { MOST_OPERANDS = 8 };

typedef struct {
    const char *name, *signature;
    const char *operands; /* W uint64, I uint32, B uint8; inputs first */
    int inputs;
    PyArrayMethod_StridedLoop *loop;
} Function;

static const Function functions[] = {
    {"transpose", "(128,w)->(w,64,2)", "WW", 1, transpose},
    {"fold", "(m,w)->(w),(k,w)", "WWW", 1, fold},
    {"correct", "(w),(k),(k,w)->(k,w)", "WWWW", 3, correct},
    {"spread", "(n,2),(),(),(b)->(n,b,2)", "WWWWW", 4, spread},
    {"gather", "(n,2),(n,b,2)->(n,b,2)", "WWW", 2, gather},
    {"both", "(n,2),(b),(2)->(2,n,2)", "WBWW", 3, both},
    {"restore", "(w,64,2)->(128,w)", "WW", 1, restore},
    {"evaluate", "(w),(2)->(2)", "WWW", 2, evaluate},
    {"evaluate_portable", "(w),(2)->(2)", "WWW", 2, evaluate_portable},
    {"combine", "(w,64,2),(p,2)->(p,128,2)", "WWW", 2, combine},
    {"combine_portable", "(w,64,2),(p,2)->(p,128,2)", "WWW", 2, combine_portable},
    {"route", "(n)->(4,n),(s)", "IIB", 1, route},
};

/* Add a function to the module; 0, or -1 with an exception set. */
static int add_function(PyObject *module, const Function *function)
{
    PyArray_DTypeMeta *dtypes[MOST_OPERANDS];
    const int total = (int)strlen(function->operands), outputs = total - function->inputs;
    PyType_Slot slots[] = {{NPY_METH_strided_loop, function->loop}, {0, NULL}};
    PyArrayMethod_Spec spec = {function->name, function->inputs, outputs, NPY_NO_CASTING,
                               NPY_METH_NO_FLOATINGPOINT_ERRORS, dtypes, slots};
    PyObject *ufunc;
    int failed;

    for (int i = 0; i < total; i++)
        dtypes[i] = function->operands[i] == 'W'   ? &PyArray_UInt64DType
                    : function->operands[i] == 'I' ? &PyArray_UInt32DType
                                                   : &PyArray_UInt8DType;
    ufunc = PyUFunc_FromFuncAndDataAndSignature(NULL, NULL, NULL, 0, function->inputs, outputs, PyUFunc_None,
                                                function->name, NULL, 0, function->signature);
    if (ufunc == NULL)
        return -1;
    failed = PyUFunc_AddLoopFromSpec(ufunc, &spec) < 0 || PyModule_AddObjectRef(module, function->name, ufunc) < 0;
    Py_DECREF(ufunc);
    return failed ? -1 : 0;
}

static int execute(PyObject *module)
{
    import_array1(-1);
    import_umath1(-1);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (add_function(module, &functions[i]) < 0)
            return -1;
    wide_here = has_wide();
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "mpc._transfers",
    .m_doc = "C loops of oblivious transfer; see mpc.ot.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__transfers(void) { return PyModuleDef_Init(&definition); }
