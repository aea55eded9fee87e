/* Products of short vectors, used by all kernels. Vector types are extensions of gcc and clang, for any processor. */

#pragma once

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CODE 127
#define LANES 8

typedef float floats __attribute__((vector_size(4 * LANES)));

static inline floats load_floats(const float *source)
{
    floats loaded;
    memcpy(&loaded, source, sizeof loaded);
    return loaded;
}

static inline float sum_of(floats lanes)
{
    float total = 0;
    for (int lane = 0; lane < LANES; lane++)
        total += lanes[lane];
    return total;
}

static inline float dot_float(const float *a, const float *b, int64_t count)
{
    floats first = {0}, second = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        first += load_floats(a + i) * load_floats(b + i);
        second += load_floats(a + i + LANES) * load_floats(b + i + LANES);
    }
    float total = sum_of(first + second);
    for (; i < count; i++)
        total += a[i] * b[i];
    return total;
}

/* Rows of activations that a row of weights is loaded for at a time. */
#define ROWS_OF_DOTS 4

/* out[row * out_step] = dot_float(weights, in + row * count), with the same sums in the same order. */
static inline __attribute__((always_inline)) void dots_float(const float *weights, const float *in, int64_t count,
                                                             float *out, int64_t out_step, float bias, int rows)
{
    floats first[ROWS_OF_DOTS] = {{0}}, second[ROWS_OF_DOTS] = {{0}};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        const floats a = load_floats(weights + i), b = load_floats(weights + i + LANES);
        for (int row = 0; row < rows; row++) {
            first[row] += a * load_floats(in + row * count + i);
            second[row] += b * load_floats(in + row * count + i + LANES);
        }
    }
    for (int row = 0; row < rows; row++) {
        float total = sum_of(first[row] + second[row]);
        for (int64_t k = i; k < count; k++)
            total += weights[k] * in[row * count + k];
        out[row * out_step] = total + bias;
    }
}

static inline int32_t dot_int8(const int16_t *restrict a, const int8_t *restrict b, int64_t count)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (int32_t)a[i] * (int16_t)b[i];
    return sum;
}

/* Scale by which `count` numbers are in -127 to 127, as in `quantize_rows`; NaN if one is NaN. As integers, magnitudes
   of floats are in the same order, with infinity and NaN above all numbers: the maximum keeps a NaN. */
static inline float scale_of(const float *restrict numbers, int64_t count)
{
    uint32_t bits = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude;
        memcpy(&magnitude, numbers + i, sizeof magnitude);
        magnitude &= 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
    }
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    return largest / MAX_CODE;
}

static inline float divisor_of(float scale)
{
    return scale < FLT_MIN ? FLT_MIN : scale;
}

/* The code of a number, from -127 to 127; -127 for NaN, whose scale is NaN too. */
static inline float code_of(float number, float divisor)
{
    const float code = rintf(number / divisor);
    return code >= -MAX_CODE ? code > MAX_CODE ? MAX_CODE : code : -MAX_CODE;
}

/* Quantize `count` activations to codes by a static scale, with clipping, or by their own scale if that is 0. Returns
   the scale; NaN if an activation is NaN, so that the products are NaN too. */
static inline float quantize(const float *restrict hidden, int16_t *restrict codes, int64_t count, float static_scale)
{
    const float own = scale_of(hidden, count), scale = static_scale > 0 && !isnan(own) ? static_scale : own;
    const float divisor = divisor_of(scale);
    for (int64_t i = 0; i < count; i++)
        codes[i] = (int16_t)code_of(hidden[i], divisor);
    return scale;
}

static inline float from_bfloat16(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

/* Add `scale` times the products of a group's codes and activations to `sums`, lane by lane; int4 and int2 codes are
   packed as by `modeling.layers.packed.pack`. Pairs of products of unsigned and signed bytes (SSSE3) fit 16 bits:
   2 x 15 x 127. Other processors use the plain loops. */
#if defined(__SSSE3__) && !defined(PLAIN_C)
#include <immintrin.h>

typedef __m128 partial_sums;

static inline partial_sums add_products(partial_sums sums, __m128i products, float scale)
{
    return _mm_add_ps(sums, _mm_mul_ps(_mm_cvtepi32_ps(products), _mm_set1_ps(scale)));
}

static inline partial_sums add_int4(partial_sums sums, const uint8_t *packed, const int8_t *a, float scale, int64_t group)
{
    const __m128i low = _mm_set1_epi8(15), ones = _mm_set1_epi16(1);
    __m128i products = _mm_setzero_si128();
    for (int64_t i = 0; i < group / 2; i += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(packed + i));
        const __m128i lower = _mm_and_si128(bytes, low), upper = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
        const __m128i pairs = _mm_add_epi16(
            _mm_maddubs_epi16(lower, _mm_loadu_si128((const __m128i *)(a + i))),
            _mm_maddubs_epi16(upper, _mm_loadu_si128((const __m128i *)(a + i + group / 2))));
        products = _mm_add_epi32(products, _mm_madd_epi16(pairs, ones));
    }
    return add_products(sums, products, scale);
}

static inline partial_sums add_int2(partial_sums sums, const uint8_t *packed, const int8_t *a, float scale, int64_t group)
{
    const __m128i low = _mm_set1_epi8(3), ones = _mm_set1_epi16(1);
    __m128i products = _mm_setzero_si128();
    for (int64_t i = 0; i < group / 4; i += 8) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(packed + i)), pairs = _mm_setzero_si128();
        for (int part = 0; part < 4; part++, bytes = _mm_srli_epi16(bytes, 2)) {
            const __m128i activations = _mm_loadl_epi64((const __m128i *)(a + i + part * (group / 4)));
            pairs = _mm_add_epi16(pairs, _mm_maddubs_epi16(_mm_and_si128(bytes, low), activations));
        }
        products = _mm_add_epi32(products, _mm_madd_epi16(pairs, ones));
    }
    return add_products(sums, products, scale);
}

static inline float sum_of_partial(partial_sums sums)
{
    return sums[0] + sums[1] + sums[2] + sums[3];
}
#else
typedef float partial_sums;

static inline partial_sums add_codes(partial_sums sums, const uint8_t *packed, const int8_t *a, float scale,
                                     int64_t group, int bits)
{
    const int64_t width = group * bits / 8;
    int32_t products = 0;
    for (int part = 0; part < 8 / bits; part++)
        for (int64_t i = 0; i < width; i++)
            products += (packed[i] >> part * bits & ((1 << bits) - 1)) * a[i + part * width];
    return sums + scale * (float)products;
}

static inline partial_sums add_int4(partial_sums sums, const uint8_t *packed, const int8_t *a, float scale, int64_t group)
{
    return add_codes(sums, packed, a, scale, group, 4);
}

static inline partial_sums add_int2(partial_sums sums, const uint8_t *packed, const int8_t *a, float scale, int64_t group)
{
    return add_codes(sums, packed, a, scale, group, 2);
}

static inline float sum_of_partial(partial_sums sums)
{
    return sums;
}
#endif

/* Outputs computed together: additions for the same output depend on each other, those for several outputs do not. */
#define ROWS_AT_ONCE 4

/* out[] = sum over groups of scale x (codes - zero point) x activations; `totals` are the sums of each group's
   activations. */
static inline __attribute__((always_inline)) void dots_packed(
    const uint8_t *packed, const uint16_t *scales, const int8_t *codes, const float *totals, float *out, int64_t bits,
    int64_t group, int64_t groups, int rows)
{
    const int64_t bytes = group * bits / 8;
    partial_sums sums[ROWS_AT_ONCE] = {0};
    float offsets[ROWS_AT_ONCE] = {0};
    for (int64_t g = 0; g < groups; g++)
        for (int row = 0; row < rows; row++) {
            const uint8_t *block = packed + (row * groups + g) * bytes;
            const float scale = from_bfloat16(scales[row * groups + g]);
            sums[row] = bits == 4 ? add_int4(sums[row], block, codes + g * group, scale, group)
                                  : add_int2(sums[row], block, codes + g * group, scale, group);
            offsets[row] += scale * totals[g];
        }
    for (int row = 0; row < rows; row++)
        out[row] = sum_of_partial(sums[row]) - offsets[row] * (bits == 4 ? 8.0f : 1.5f);
}
