/* Label map and probabilities of a band of rows, straight from the logits; segmentation.py owns the meaning, kernel.py
 * calls it.
 *
 * For every output pixel the logits of all classes are combined from a few source pixels (first vertically into one row
 * buffer, then horizontally), the best class is found among those that can win in the pixel's tile, and the probability
 * of the best is 1 / sum(exp(logit - best)). Sixteen classes go through at once; the compiler splits the vectors where
 * the processor has shorter ones. Logits are held in units of ln 2, so that exp is 2^x.
 *
 * Every logit is looked at before anything follows from it: NaN, infinity and what lies beyond LARGEST end the work, and
 * segmentation.py says why or takes the slow way. Below LARGEST nothing here overflows, a tile has at least one possible
 * winner, and no lane that only fills up a vector can win.
 */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define MAX_CLASSES 256
#define FEW 24 /* up to here a scan over the possible winners beats a vector maximum over all classes */
#define MAX_TAPS 64
#define LARGEST 1e29f /* LARGEST * LOG2E is well below -LOWEST */
#define LOWEST -1e30f
#define LOG2E 1.44269504f

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef float vf_any __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    const int32_t *first;  /* source sample of the first tap of each output sample */
    const float *weights;  /* final x taps */
    Py_ssize_t taps, final;
} axis;

typedef struct {
    Py_ssize_t start, stop;
} span;

typedef struct {
    const float *pixels; /* height x width x classes; from pixel to pixel `pitch` floats, at least `classes` */
    Py_ssize_t height, width, classes, pitch, padded;
    axis rows, cols;
    uint8_t *labels; /* rows.final x cols.final */
    double *sums;    /* per class: probability over its pixels */
    int64_t *counts; /* per class: pixels */
    float *row, *low, *high; /* width x padded, and twice width x pitch: the stretched row; extremes over the rows of a tile */
    int16_t *winners;        /* per tile column: number of possible winners, then their ids */
} work;

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const vf_any *)p; }
INLINE void store(float *p, vf v) { *(vf_any *)p = v; }
INLINE vf choose(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
INLINE vf lesser(vf a, vf b) { return choose((vi)(a < b), a, b); }
INLINE vf greater(vf a, vf b) { return choose((vi)(a > b), a, b); }
INLINE vf all(float x) { return x - (vf){0}; }

/* 2^x for x <= 0, relative error below 3e-6; exactly 1 for 0, and 0 below -126. */
INLINE vf power_of_two(vf x) {
    const vf magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    vf shifted = x + magic;
    vf f = x - (shifted - magic); /* -0.5 .. 0.5 */
    vf p = all(9.582853e-3f) * f + all(5.5906426e-2f); /* minimax among those that are 1 at 0 */
    p = p * f + all(2.4024099e-1f);
    p = p * f + all(6.931242e-1f);
    p = p * f + all(1.0f);
    vi bits = (vi)((vu)p + ((vu)shifted << 23)); /* unsigned: whatever x is, nothing overflows */
    return (vf)(bits & (vi)(x > -126.0f));
}

INLINE float sum_lanes(vf v) {
    union { vf all; float lane[LANES]; } u = {v};
    float s[4];
    for (int i = 0; i < 4; i++) s[i] = (u.lane[i] + u.lane[i + 4]) + (u.lane[i + 8] + u.lane[i + 12]);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* out = sum of taps, `step` floats apart; the common numbers of taps are unrolled. */
INLINE vf combine(const float *source, Py_ssize_t step, const float *weights, Py_ssize_t taps) {
    vf v = load(source) * weights[0];
    for (Py_ssize_t t = 1; t < taps; t++) v += load(source + t * step) * weights[t];
    return v;
}

INLINE void combine_vectors(float *out, const float *source, Py_ssize_t step, const float *weights, Py_ssize_t taps,
                            Py_ssize_t n) {
    while (taps > 1 && weights[taps - 1] == 0) taps--;
    while (taps > 1 && weights[0] == 0) taps--, weights++, source += step;
#define VECTORS(T) for (Py_ssize_t c = 0; c < n; c += LANES) store(out + c, combine(source + c, step, weights, T))
    switch (taps) {
    case 1: VECTORS(1); break;
    case 2: VECTORS(2); break;
    case 3: VECTORS(3); break;
    default: VECTORS(taps);
    }
#undef VECTORS
}

/* The row of stretched logits, in units of ln 2; the classes that only fill up the last vector get LOWEST. */
INLINE void stretch_row(const work *w, Py_ssize_t y) {
    Py_ssize_t classes = w->classes, whole = classes / LANES * LANES, stride = w->width * w->pitch;
    Py_ssize_t taps = w->rows.taps;
    const float *source = w->pixels + w->rows.first[y] * stride;
    float weights[MAX_TAPS];
    for (Py_ssize_t t = 0; t < taps; t++) weights[t] = w->rows.weights[y * taps + t] * LOG2E;
    for (Py_ssize_t x = 0; x < w->width; x++, source += w->pitch) {
        float *out = w->row + x * w->padded;
        combine_vectors(out, source, stride, weights, taps, whole);
        if (whole && whole < classes) /* the last vector overlaps the one before */
            combine_vectors(out + classes - LANES, source + classes - LANES, stride, weights, taps, LANES);
        for (Py_ssize_t c = whole ? classes : 0; c < classes; c++) {
            out[c] = 0;
            for (Py_ssize_t t = 0; t < taps; t++) out[c] += source[t * stride + c] * weights[t];
        }
        for (Py_ssize_t c = classes; c < w->padded; c++) out[c] = LOWEST;
    }
}

/* The source samples that some outputs read, with those up to the next output's: all outputs together leave out none. */
INLINE span samples(const axis *a, Py_ssize_t size, Py_ssize_t start, Py_ssize_t stop) {
    span read = {start ? a->first[start] : 0, a->first[stop - 1] + a->taps};
    Py_ssize_t next = stop < a->final ? a->first[stop] : size;
    read.stop = next > read.stop ? next : read.stop;
    return read;
}

/* Extremes of each source column over some source rows; the lower one is -infinity where a sample is NaN. */
INLINE void find_extremes(const work *w, span rows) {
    Py_ssize_t stride = w->width * w->pitch, n = stride - w->pitch + w->classes, i = 0;
    const float *source = w->pixels + rows.start * stride;
    for (; i + LANES <= n; i += LANES) {
        vf low = load(source + i), high = low, sum = low;
        for (Py_ssize_t j = 1; j < rows.stop - rows.start; j++) {
            vf v = load(source + j * stride + i);
            low = lesser(v, low), high = greater(v, high), sum += v; /* comparisons pass over NaN, sums keep it */
        }
        low = choose((vi)(sum == sum), low, all(-INFINITY));
        store(w->low + i, low), store(w->high + i, high);
    }
    for (; i < n; i++) {
        float low = source[i], high = low, sum = low;
        for (Py_ssize_t j = 1; j < rows.stop - rows.start; j++) {
            float v = source[j * stride + i];
            low = v < low ? v : low, high = v > high ? v : high, sum += v;
        }
        w->low[i] = sum == sum ? low : -INFINITY, w->high[i] = high;
    }
}

/* Classes whose maximum reaches the largest minimum; every stretched logit is a weighted mean of these samples. False
 * where one of them is NaN or beyond LARGEST. */
INLINE int find_winners(const work *w, span columns, int16_t *winners) {
    float low[MAX_CLASSES], high[MAX_CLASSES], bar = LOWEST;
    Py_ssize_t classes = w->classes;
    int in_range = 1;
    memcpy(low, w->low + columns.start * w->pitch, classes * sizeof(float));
    memcpy(high, w->high + columns.start * w->pitch, classes * sizeof(float));
    for (Py_ssize_t i = columns.start + 1; i < columns.stop; i++) {
        const float *l = w->low + i * w->pitch, *h = w->high + i * w->pitch;
        for (Py_ssize_t c = 0; c < classes; c++) {
            low[c] = l[c] < low[c] ? l[c] : low[c];
            high[c] = h[c] > high[c] ? h[c] : high[c];
        }
    }
    for (Py_ssize_t c = 0; c < classes; c++) {
        in_range &= (low[c] >= -LARGEST) & (high[c] <= LARGEST);
        bar = low[c] > bar ? low[c] : bar;
    }
    if (!in_range) return 0;
    bar -= 1e-4f + 1e-6f * (bar < 0 ? -bar : bar); /* rounding of the weighted means */
    int16_t n = 0;
    winners[1] = 0;
    for (Py_ssize_t c = 0; c < classes; c++)
        if (high[c] >= bar) winners[++n] = (int16_t)c;
    winners[0] = n; /* at least one: the class whose minimum is the bar */
    return 1;
}

INLINE int best_class(const float *values, Py_ssize_t padded, const int16_t *winners, float *best) {
    int n = winners[0], label = winners[1];
    float top = values[label];
    if (n <= FEW) {
        for (int k = 2; k <= n; k++) {
            float v = values[winners[k]];
            label = v > top ? winners[k] : label;
            top = v > top ? v : top;
        }
    } else {
        vf m = load(values);
        vi at = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, id = at;
        for (Py_ssize_t c = LANES; c < padded; c += LANES) {
            vf v = load(values + c);
            id += LANES;
            vi more = (vi)(v > m);
            m = choose(more, v, m);
            at = (id & more) | (at & ~more);
        }
        top = m[0], label = at[0];
        for (int i = 1; i < LANES; i++)
            if (m[i] > top || (m[i] == top && at[i] < label)) top = m[i], label = at[i];
    }
    *best = top;
    return label;
}

INLINE float probability(const float *values, Py_ssize_t padded, float best) {
    vf even = power_of_two(load(values) - best), odd = {0};
    Py_ssize_t c = LANES;
    for (; c + LANES < padded; c += 2 * LANES) {
        odd += power_of_two(load(values + c) - best);
        even += power_of_two(load(values + c + LANES) - best);
    }
    if (c < padded) odd += power_of_two(load(values + c) - best);
    return 1.0f / sum_lanes(even + odd);
}

INLINE void label_run(const work *w, Py_ssize_t y, Py_ssize_t left, Py_ssize_t right, const int16_t *winners) {
    float values[MAX_CLASSES] __attribute__((aligned(64)));
    Py_ssize_t classes = w->classes, padded = w->padded, taps = w->cols.taps;
    uint8_t *labels = w->labels + y * w->cols.final;
    for (Py_ssize_t x = left; x < right; x++) {
        const float *source = w->row + w->cols.first[x] * padded, *weights = w->cols.weights + x * taps;
        combine_vectors(values, source, padded, weights, taps, padded);
        float best;
        int label = best_class(values, padded, winners, &best);
        label = label < classes ? label : 0; /* for logits that another thread changes meanwhile */
        labels[x] = (uint8_t)label;
        w->sums[label] += probability(values, padded, best);
        w->counts[label]++;
    }
}

/* False, leaving the work undone, where a logit is NaN or beyond LARGEST. */
INLINE int segment_rows(const work *w, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t tile) {
    Py_ssize_t width = w->cols.final;
    for (Py_ssize_t y0 = top; y0 < bottom; y0 += tile) {
        Py_ssize_t y1 = y0 + tile < bottom ? y0 + tile : bottom;
        find_extremes(w, samples(&w->rows, w->height, y0, y1));
        int16_t *winners = w->winners;
        for (Py_ssize_t x0 = 0; x0 < width; x0 += tile, winners += MAX_CLASSES + 1) {
            Py_ssize_t x1 = x0 + tile < width ? x0 + tile : width;
            if (!find_winners(w, samples(&w->cols, w->width, x0, x1), winners)) return 0;
        }
        for (Py_ssize_t y = y0; y < y1; y++) {
            stretch_row(w, y);
            winners = w->winners;
            for (Py_ssize_t x0 = 0; x0 < width; x0 += tile, winners += MAX_CLASSES + 1)
                label_run(w, y, x0, x0 + tile < width ? x0 + tile : width, winners);
        }
    }
    return 1;
}

typedef int (*kernel)(const work *, Py_ssize_t, Py_ssize_t, Py_ssize_t);

static int segment_plain(const work *w, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t tile) {
    return segment_rows(w, top, bottom, tile);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma")))
static int segment_avx2(const work *w, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t tile) {
    return segment_rows(w, top, bottom, tile);
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
static int segment_avx512(const work *w, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t tile) {
    return segment_rows(w, top, bottom, tile);
}
#endif

/* The kernel for an instruction set, NULL where the processor lacks it or there is none of that name. */
static kernel find_kernel(const char *name) {
    if (!strcmp(name, "plain")) return segment_plain;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return segment_avx2;
    if (!strcmp(name, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return segment_avx512;
#endif
    return NULL;
}

static const char *const names[] = {"avx512", "avx2", "plain"}; /* the fastest first */
static kernel chosen;

static PyObject *use(PyObject *self, PyObject *args) {
    const char *name;
    (void)self;
    if (!PyArg_ParseTuple(args, "s", &name)) return NULL;
    kernel found = find_kernel(name);
    if (!found)
        return PyErr_Format(PyExc_ValueError, "this processor or build has no kernel '%s'; see `kernels`", name);
    chosen = found;
    Py_RETURN_NONE;
}

/* Whether all taps lie inside the source, the first ones ascending. */
static int within(const axis *a, Py_ssize_t size) {
    if (a->taps < 1 || a->taps > size || a->final < 1) return 0;
    Py_ssize_t least = 0;
    for (Py_ssize_t i = 0; i < a->final; i++) {
        if (a->first[i] < least || a->first[i] > size - a->taps) return 0;
        least = a->first[i];
    }
    return 1;
}

/* Arguments: addresses, which the caller in kernel.py answers for, and sizes. */
static PyObject *segment_band(PyObject *self, PyObject *args) {
    work w;
    Py_ssize_t top, bottom, tile, pixels, row_first, row_weights, col_first, col_weights, labels, sums, counts;
    (void)self;
    if (!PyArg_ParseTuple(args, "nnnnnnnnnnnnnnnnnnn", &pixels, &w.height, &w.width, &w.classes, &w.pitch, &row_first,
                          &row_weights, &w.rows.taps, &w.rows.final, &col_first, &col_weights, &w.cols.taps,
                          &w.cols.final, &labels, &sums, &counts, &top, &bottom, &tile))
        return NULL;
    w.pixels = (const float *)pixels;
    w.rows.first = (const int32_t *)row_first, w.rows.weights = (const float *)row_weights;
    w.cols.first = (const int32_t *)col_first, w.cols.weights = (const float *)col_weights;
    w.labels = (uint8_t *)labels, w.sums = (double *)sums, w.counts = (int64_t *)counts;
    if (w.classes < 1 || w.classes > MAX_CLASSES || w.pitch < w.classes || w.height < 1 || w.width < 1 || tile < 1
        || w.pitch > PY_SSIZE_T_MAX / 256 / w.height / w.width || top < 0 || bottom > w.rows.final || top >= bottom) {
        PyErr_SetString(PyExc_ValueError, "sizes out of range");
        return NULL;
    }
    if (!within(&w.rows, w.height) || !within(&w.cols, w.width)) {
        PyErr_SetString(PyExc_ValueError, "taps outside the logits, or not in ascending order");
        return NULL;
    }
    if (w.rows.taps > MAX_TAPS) Py_RETURN_FALSE;
    Py_ssize_t longer = w.rows.final > w.cols.final ? w.rows.final : w.cols.final;
    tile = tile < longer ? tile : longer; /* so that no sum below overflows */
    w.padded = (w.classes + LANES - 1) / LANES * LANES;
    size_t plane = (size_t)w.width * (w.pitch > w.padded ? w.pitch : w.padded), tiles = (w.cols.final + tile - 1) / tile;
    float *buffers = malloc(3 * plane * sizeof(float));
    w.winners = malloc(tiles * (MAX_CLASSES + 1) * sizeof(int16_t));
    if (!buffers || !w.winners) {
        free(buffers), free(w.winners);
        return PyErr_NoMemory();
    }
    w.row = buffers, w.low = buffers + plane, w.high = buffers + 2 * plane;
    kernel run = chosen;
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = run(&w, top, bottom, tile);
    Py_END_ALLOW_THREADS
    free(buffers), free(w.winners);
    return PyBool_FromLong(done);
}

static PyMethodDef methods[] = {
    {"segment_band", segment_band, METH_VARARGS,
     "Label the rows from top to bottom; see kernel.py. False, and labels of no use, where a logit is NaN or beyond "
     "1e29, or an output row has more than 64 taps: the arithmetic here is not made for them."},
    {"use", use, METH_VARARGS, "Run the kernel of that name, one of `kernels`, from now on; for tests."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_segment", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__segment(void) {
    PyObject *self = PyModule_Create(&module), *kernels = PyList_New(0);
    for (size_t i = 0; self && kernels && i < sizeof names / sizeof *names; i++) {
        kernel found = find_kernel(names[i]);
        if (!found) continue;
        if (!chosen) chosen = found;
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyList_Append(kernels, name)) Py_CLEAR(self);
        Py_XDECREF(name);
    }
    /* Those that this processor can run, the fastest first. */
    if (self && (!kernels || PyModule_AddObjectRef(self, "kernels", kernels))) Py_CLEAR(self);
    Py_XDECREF(kernels);
    return self;
}
