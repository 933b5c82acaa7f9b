/*
 * The loops of lattice-based encryption as numpy gufuncs: arithmetic on polynomials modulo x^n + 1 and a prime.
 *
 * The numpy twin is _twin_lattice.py; one test class runs on both. As in _transfers.c there is no Python logic and no
 * allocation, and no branch and no address depends on an element. What numpy cannot check of a shape, the loop checks
 * itself; that moduli are primes below 2^48 is for the caller to see to.
 *
 * Products modulo q: with `ratio` the double nearest to w / q, the quotient x w / q is rounded to an integer k in
 * floating point, and x w - k q is computed modulo 2^64, in which it fits. For x < 4q < 2^50 and w < q the quotient is
 * below 2^50 and off by at most 2^50 * 2 * 2^-53 = 1/4 before it is rounded to an integer (by adding 2^52, whose
 * neighbours are 1 apart), so that |x w - k q| <= 3/4 q, and after adding q it is between q / 4 and 7/4 q.
 * A compiler that fuses a multiplication with an addition leaves out a rounding, which does no harm to this bound.
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

/* ---- arithmetic modulo q ------------------------------------------------------------------------------------------ */

/* x < 2^52: its bits below the leading one of 2^52 are the double 2^52 + x. */
INLINE double as_double(u64 x)
{
    double d;
    x |= (u64)0x433 << 52;
    memcpy(&d, &x, 8);
    return d - 0x1p52;
}

/* The integer nearest to d, 0 <= d < 2^52. */
INLINE u64 nearest(double d)
{
    u64 x;
    d += 0x1p52;
    memcpy(&x, &d, 8);
    return x & (((u64)1 << 52) - 1);
}

/* x w modulo q, between q / 4 and 7/4 q; x < 4q, w < q. */
INLINE u64 times(u64 x, u64 w, double ratio, u64 q) { return x * w - nearest(as_double(x) * ratio) * q + q; }

/* x modulo m, for x < 2m: the difference wraps to something larger where x is below m. */
INLINE u64 less(u64 x, u64 m)
{
    const u64 y = x - m;
    return y < x ? y : x;
}

/* ---- transforms: (n),(n),(n),()->(n) ------------------------------------------------------------------------------ */

enum { SIDE = 8 }; /* butterflies of SIDE numbers side by side are done SIDE at a time, crosswise */

typedef u64 Square[SIDE][SIDE];

/* SIDE rows of SIDE words, transposed. */
INLINE void cross(const u64 *restrict from, u64 *restrict to)
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++)
            to[j * SIDE + i] = from[i * SIDE + j];
}

/* Numbers below 4q to numbers below 4q. */
INLINE void split(u64 *restrict a, u64 *restrict b, const u64 *restrict w, const double *restrict ratio, u64 q)
{
    for (int j = 0; j < SIDE; j++) {
        const u64 u = less(a[j], 2 * q), v = times(b[j], w[j], ratio[j], q);
        a[j] = u + v;
        b[j] = u - v + 2 * q;
    }
}

/* Numbers below 2q to numbers below 2q. */
INLINE void merge(u64 *restrict a, u64 *restrict b, const u64 *restrict w, const double *restrict ratio, u64 q)
{
    for (int j = 0; j < SIDE; j++) {
        const u64 u = a[j], v = b[j];
        a[j] = less(u + v, 2 * q);
        b[j] = times(u - v + 2 * q, w[j], ratio[j], q);
    }
}

/* The roots of SIDE neighbouring groups at a level, for butterfly k of so many in a group. */
INLINE void pick(const u64 *roots, const double *ratios, int count, int k, u64 *w, double *ratio)
{
    for (int j = 0; j < SIDE; j++) {
        w[j] = roots[j * count + k];
        ratio[j] = ratios[j * count + k];
    }
}

/*
 * Values at the odd powers of a 2n-th root of unity, in bit-reversed order (Longa, Naehrig, CANS 2016, algorithm 1, with
 * the lazy reduction of Harvey, J. Symb. Comput. 60, 2014). Numbers below 4q to numbers below q.
 */
VECTOR static void forward_one(u64 *restrict x, const u64 *restrict roots, const double *restrict ratios, u64 q,
                               npy_intp n)
{
    for (npy_intp m = 1, t = n / 2; t >= SIDE; m *= 2, t /= 2)
        for (npy_intp i = 0; i < m; i++) {
            u64 *a = x + 2 * i * t, *b = a + t;
            const u64 w = roots[m + i];
            const double ratio = ratios[m + i];
            for (npy_intp j = 0; j < t; j++) {
                const u64 u = less(a[j], 2 * q), v = times(b[j], w, ratio, q);
                a[j] = u + v;
                b[j] = u - v + 2 * q;
            }
        }
    for (npy_intp g = 0; g < n / SIDE; g += SIDE) { /* the last three levels: groups of SIDE numbers, SIDE of them */
        u64 *at = x + g * SIDE, w[SIDE];
        double ratio[SIDE];
        Square s;
        cross(at, s[0]);
        for (int t = SIDE / 2, m = 1; t; t /= 2, m *= 2)
            for (int k = 0; k < m; k++) {
                const npy_intp first = n / (2 * t) + g * m;
                pick(roots + first, ratios + first, m, k, w, ratio);
                for (int j = 0; j < t; j++)
                    split(s[2 * k * t + j], s[2 * k * t + j + t], w, ratio, q);
            }
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++)
                s[i][j] = less(less(s[i][j], 2 * q), q);
        cross(s[0], at);
    }
}

/* The way back; roots[0] is 1 / n. Numbers below 2q to numbers below q. */
VECTOR static void backward_one(u64 *restrict x, const u64 *restrict roots, const double *restrict ratios, u64 q,
                                npy_intp n)
{
    const u64 scale = roots[0];
    const double scale_ratio = ratios[0];
    for (npy_intp g = 0; g < n / SIDE; g += SIDE) {
        u64 *at = x + g * SIDE, w[SIDE];
        double ratio[SIDE];
        Square s;
        cross(at, s[0]);
        for (int t = 1, m = SIDE / 2; m; t *= 2, m /= 2)
            for (int k = 0; k < m; k++) {
                const npy_intp first = n / (2 * t) + g * m;
                pick(roots + first, ratios + first, m, k, w, ratio);
                for (int j = 0; j < t; j++)
                    merge(s[2 * k * t + j], s[2 * k * t + j + t], w, ratio, q);
            }
        cross(s[0], at);
    }
    for (npy_intp t = SIDE, m = n / (2 * SIDE); m; t *= 2, m /= 2)
        for (npy_intp i = 0; i < m; i++) {
            u64 *a = x + 2 * i * t, *b = a + t;
            const u64 w = roots[m + i];
            const double ratio = ratios[m + i];
            for (npy_intp j = 0; j < t; j++) {
                const u64 u = a[j], v = b[j];
                a[j] = less(u + v, 2 * q);
                b[j] = times(u - v + 2 * q, w, ratio, q);
            }
        }
    for (npy_intp j = 0; j < n; j++)
        x[j] = less(times(x[j], scale, scale_ratio, q), q);
}

typedef void Transform(u64 *restrict x, const u64 *restrict roots, const double *restrict ratios, u64 q, npy_intp n);

static int transform(char *const *data, const npy_intp *dimensions, const npy_intp *strides, Transform *one)
{
    const npy_intp n = dimensions[1]; /* dimensions: outer, n */
    if (n < SIDE * SIDE || n & (n - 1))
        return refuse("transforms take 2^k numbers, at least 64");
    if (strides[6] != 8 || strides[7] != 8 || strides[8] != 8)
        return refuse("transforms take roots in one piece");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const char *x = data[0] + o * strides[0];
        u64 *out = (u64 *)(data[4] + o * strides[4]);
        if (strides[5] == 8)
            memmove(out, x, (size_t)n * 8);
        else
            for (npy_intp i = 0; i < n; i++)
                out[i] = load(x + i * strides[5]);
        one(out, (const u64 *)(data[1] + o * strides[1]), (const double *)(data[2] + o * strides[2]),
            load(data[3] + o * strides[3]), n);
    }
    return 0;
}

LOOP(forward)
{
    UNUSED_ARGUMENTS;
    return transform(data, dimensions, strides, forward_one);
}

LOOP(backward)
{
    UNUSED_ARGUMENTS;
    return transform(data, dimensions, strides, backward_one);
}

/* ---- products: (n),(n),(n),()->(n) -------------------------------------------------------------------------------- */

enum { PIECE = 512 };

/* `count` words that lie `step` bytes apart: as they are, or copied. */
INLINE const u64 *in_one_piece(const char *from, npy_intp count, npy_intp step, u64 *copy)
{
    if (step == 8)
        return (const u64 *)from;
    for (npy_intp i = 0; i < count; i++)
        copy[i] = load(from + i * step);
    return copy;
}

/* Where to write `count` words that are to lie `step` bytes apart: at once, or to be put there by `put`. */
INLINE u64 *place(char *to, npy_intp step, u64 *copy) { return step == 8 ? (u64 *)to : copy; }

INLINE void put(char *to, npy_intp step, const u64 *from, npy_intp count)
{
    if (step != 8)
        for (npy_intp i = 0; i < count; i++)
            memcpy(to + i * step, &from[i], 8);
}

/*
 * x y + z modulo q, all below q: the quotient is below 2^48 and off by 3 * 2^48 * 2^-53 < 1/10 before it is rounded, so
 * that the product is below 8/5 q.
 */
VECTOR static void multiply_add_piece(const u64 *x, const u64 *y, const u64 *z, u64 *out, u64 q, npy_intp count)
{
    const double inverse = 1 / (double)q;
    for (npy_intp i = 0; i < count; i++) {
        const u64 product = x[i] * y[i] - nearest(as_double(x[i]) * as_double(y[i]) * inverse) * q + q;
        out[i] = less(less(product + z[i], 2 * q), q);
    }
}

LOOP(multiply_add)
{
    const npy_intp n = dimensions[1], x = strides[5], y = strides[6], z = strides[7], to = strides[8];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp start = 0; start < n; start += PIECE) {
            const npy_intp count = n - start < PIECE ? n - start : PIECE;
            u64 copies[3][PIECE], sums[PIECE];
            char *out = data[4] + o * strides[4] + start * to;
            multiply_add_piece(in_one_piece(data[0] + o * strides[0] + start * x, count, x, copies[0]),
                               in_one_piece(data[1] + o * strides[1] + start * y, count, y, copies[1]),
                               in_one_piece(data[2] + o * strides[2] + start * z, count, z, copies[2]), place(out, to, sums),
                               load(data[3] + o * strides[3]), count);
            put(out, to, sums, count);
        }
    return 0;
}

/* ---- dropping a prime: (n),(n),(),(),()->(n) ----------------------------------------------------------------------- */

/*
 * (x - r) / p modulo q, for residues x modulo q and r modulo p of the same integer, r taken between -p/2 and p/2. Both
 * primes are below twice the other. With r + p/2 modulo p, which is r + p/2, what is multiplied is below 3q.
 */
VECTOR static void drop_piece(const u64 *x, const u64 *r, u64 q, u64 p, u64 inverse, u64 *out, npy_intp count)
{
    const double ratio = (double)inverse / (double)q;
    const u64 half = p / 2;
    for (npy_intp i = 0; i < count; i++) {
        const u64 raised = less(less(r[i] + half, p), q);
        out[i] = less(times(x[i] + half + q - raised, inverse, ratio, q), q);
    }
}

LOOP(drop)
{
    const npy_intp n = dimensions[1], x = strides[6], r = strides[7], to = strides[8];
    UNUSED_ARGUMENTS;
    for (npy_intp o = 0; o < dimensions[0]; o++)
        for (npy_intp start = 0; start < n; start += PIECE) {
            const npy_intp count = n - start < PIECE ? n - start : PIECE;
            u64 copies[2][PIECE], found[PIECE];
            char *out = data[5] + o * strides[5] + start * to;
            drop_piece(in_one_piece(data[0] + o * strides[0] + start * x, count, x, copies[0]),
                       in_one_piece(data[1] + o * strides[1] + start * r, count, r, copies[1]),
                       load(data[2] + o * strides[2]), load(data[3] + o * strides[3]), load(data[4] + o * strides[4]),
                       place(out, to, found), count);
            put(out, to, found, count);
        }
    return 0;
}

/* ---- long integers: (n,l),(),()->(n) ------------------------------------------------------------------------------ */

enum { MOST_LIMBS = 16 };

/* Limbs of 32 bits, the lowest first, to residues modulo q; 2^32 < q, and an offset below q is added. */
VECTOR static void residues_piece(u64 limbs[][PIECE], npy_intp length, u64 q, u64 offset, u64 *out, npy_intp count)
{
    const u64 base = (u64)1 << 32;
    const double ratio = (double)base / (double)q;
    for (npy_intp i = 0; i < count; i++)
        out[i] = limbs[length - 1][i];
    for (npy_intp l = length - 1; l-- > 0;)
        for (npy_intp i = 0; i < count; i++)
            out[i] = times(out[i], base, ratio, q) + limbs[l][i]; /* < 7/4 q + 2^32 < 4q */
    for (npy_intp i = 0; i < count; i++)
        out[i] = less(less(less(out[i], 2 * q) + offset, 2 * q), q);
}

LOOP(residues)
{
    const npy_intp n = dimensions[1], length = dimensions[2], entry = strides[4], limb = strides[5], to = strides[6];
    UNUSED_ARGUMENTS;
    if (length < 1 || length > MOST_LIMBS)
        return refuse("residues takes integers of 1 to 16 limbs");
    for (npy_intp o = 0; o < dimensions[0]; o++) {
        const u64 q = load(data[1] + o * strides[1]), offset = load(data[2] + o * strides[2]);
        if (q >> 32 == 0)
            return refuse("residues takes moduli above 2^32");
        for (npy_intp start = 0; start < n; start += PIECE) {
            const npy_intp count = n - start < PIECE ? n - start : PIECE;
            u64 limbs[MOST_LIMBS][PIECE], found[PIECE];
            const char *x = data[0] + o * strides[0] + start * entry;
            char *out = data[3] + o * strides[3] + start * to;
            for (npy_intp l = 0; l < length; l++)
                for (npy_intp i = 0; i < count; i++) {
                    u32 part;
                    memcpy(&part, x + i * entry + l * limb, 4);
                    limbs[l][i] = part;
                }
            residues_piece(limbs, length, q, offset, place(out, to, found), count);
            put(out, to, found, count);
        }
    }
    return 0;
}

/* ---- the module --------------------------------------------------------------------------------------------------- */

enum { MOST_OPERANDS = 8 };

typedef struct {
    const char *name, *signature;
    const char *operands; /* W uint64, I uint32, F float64; inputs first */
    int inputs;
    PyArrayMethod_StridedLoop *loop;
} Function;

static const Function functions[] = {
    {"forward", "(n),(n),(n),()->(n)", "WWFWW", 4, forward},
    {"backward", "(n),(n),(n),()->(n)", "WWFWW", 4, backward},
    {"multiply_add", "(n),(n),(n),()->(n)", "WWWWW", 4, multiply_add},
    {"drop", "(n),(n),(),(),()->(n)", "WWWWWW", 5, drop},
    {"residues", "(n,l),(),()->(n)", "IWWW", 3, residues},
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
                                                   : &PyArray_DoubleDType;
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
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "mpc._lattice",
    .m_doc = "C loops of lattice-based encryption; see mpc.ot.lattice.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__lattice(void) { return PyModuleDef_Init(&definition); }
