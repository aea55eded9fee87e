/* Matrix products of few rows: plain loops that the compiler vectorizes with -O3 -march=native.

   `down` is stored neuron-major, (neurons, width): the weights of a neuron are contiguous, and those of a neuron with
   activation zero are never read. `up` is (neurons, width) too. */

#include "products.h"

/* Active neurons that are not added to the output yet: four are added at a time, so that the output is loaded and
   stored a quarter as often. */
struct pending {
    const float *weights[4];
    float values[4];
    int count;
};

static void add_neuron(float *restrict out, const float *restrict weights, float value, int64_t width)
{
    for (int64_t i = 0; i < width; i++)
        out[i] += value * weights[i];
}

static void add_active(struct pending *pending, float *restrict out, const float *weights, float value, int64_t width)
{
    pending->weights[pending->count] = weights;
    pending->values[pending->count] = value;
    if (++pending->count < 4)
        return;
    pending->count = 0;
    const float a = pending->values[0], b = pending->values[1], c = pending->values[2], d = pending->values[3];
    const float *restrict wa = pending->weights[0], *restrict wb = pending->weights[1];
    const float *restrict wc = pending->weights[2], *restrict wd = pending->weights[3];
    for (int64_t i = 0; i < width; i++)
        out[i] += a * wa[i] + b * wb[i] + c * wc[i] + d * wd[i];
}

static void add_remaining(struct pending *pending, float *restrict out, int64_t width)
{
    for (int i = 0; i < pending->count; i++)
        add_neuron(out, pending->weights[i], pending->values[i], width);
}

static void initialize(float *restrict out, const float *restrict bias, int64_t width)
{
    if (bias)
        memcpy(out, bias, width * sizeof *out);
    else
        memset(out, 0, width * sizeof *out);
}

/* out (rows, width) = active (rows, neurons) down + bias (width), which may be NULL. */
void sparse_product(const float *active, const float *down, const float *bias, float *out, int64_t rows,
                    int64_t neurons, int64_t width)
{
    for (int64_t row = 0; row < rows; row++, active += neurons, out += width) {
        struct pending pending = {.count = 0};
        initialize(out, bias, width);
        for (int64_t neuron = 0; neuron < neurons; neuron++)
            if (active[neuron] != 0)
                add_active(&pending, out, down + neuron * width, active[neuron], width);
        add_remaining(&pending, out, width);
    }
}

/* sums (width) = quantized activations times down, skipping zeros; exact while neurons * 127^2 < 2^31. No code is -128,
   so that the sum of two products fits 16 bits: twice the lanes of 32-bit products. */
static void sparse_sums(const float *restrict active, float divisor, const int8_t *restrict down,
                          int32_t *restrict sums, int64_t neurons, int64_t width)
{
    const int8_t *first = NULL;
    int16_t a = 0;
    memset(sums, 0, width * sizeof *sums);
    for (int64_t neuron = 0; neuron < neurons; neuron++) {
        if (active[neuron] == 0)
            continue;
        const int16_t value = (int16_t)code_of(active[neuron], divisor);
        if (!value)
            continue;
        if (!first) {
            first = down + neuron * width;
            a = value;
            continue;
        }
        const int8_t *restrict wa = first, *restrict wb = down + neuron * width;
        for (int64_t i = 0; i < width; i++)
            sums[i] += (int16_t)((int16_t)(a * wa[i]) + (int16_t)(value * wb[i]));
        first = NULL;
    }
    if (first)
        for (int64_t i = 0; i < width; i++)
            sums[i] += (int16_t)(a * first[i]);
}

/* out (rows, outputs) = hidden (rows, inputs) weight^T + bias: int8 weights (outputs, inputs) with a scale per output,
   int8 activations with a static scale, or with a scale per row if that is 0; bias may be NULL. Returns 0, or 1 if
   out of memory. */
int linear_int8(const float *hidden, const int8_t *weight, const float *weight_scale, const float *bias, float *out,
                float static_scale, int64_t rows, int64_t outputs, int64_t inputs)
{
    int16_t *codes = malloc(inputs * sizeof *codes);
    for (int64_t row = 0; codes && row < rows; row++, hidden += inputs, out += outputs) {
        const float scale = quantize(hidden, codes, inputs, static_scale);
        for (int64_t output = 0; output < outputs; output++) {
            const float sum = (float)dot_int8(codes, weight + output * inputs, inputs) * scale;
            out[output] = sum * weight_scale[output] + (bias ? bias[output] : 0);
        }
    }
    const int failed = !codes;
    free(codes);
    return failed;
}

/* out (rows, outputs) = hidden (rows, inputs) weight^T + bias: int4 or int2 weights with bfloat16 scales (outputs,
   groups), int8 activations with a scale per row, and a bfloat16 bias, which may be NULL. Returns 0, or 1 if out of
   memory. */
int linear_packed(const float *hidden, const uint8_t *packed, const uint16_t *scales, const uint16_t *bias, float *out,
                  int64_t bits, int64_t group, int64_t rows, int64_t outputs, int64_t inputs)
{
    const int64_t groups = (inputs + group - 1) / group, width = group * bits / 8 * groups;
    int16_t *wide = malloc(inputs * sizeof *wide);
    int8_t *codes = calloc(groups * group, sizeof *codes);
    float *totals = malloc(groups * sizeof *totals);
    const int failed = !wide || !codes || !totals;
    for (int64_t row = 0; !failed && row < rows; row++, hidden += inputs, out += outputs) {
        const float scale = quantize(hidden, wide, inputs, 0);
        for (int64_t i = 0; i < inputs; i++)
            codes[i] = (int8_t)wide[i];
        for (int64_t g = 0; g < groups; g++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < group; i++)
                sum += codes[g * group + i];
            totals[g] = (float)sum;
        }
        for (int64_t output = 0; output < outputs;) {
            const uint8_t *block = packed + output * width;
            const uint16_t *block_scales = scales + output * groups;
            const int count = outputs - output >= ROWS_AT_ONCE ? ROWS_AT_ONCE : 1;
            float sums[ROWS_AT_ONCE];
            if (count > 1 && bits == 4)
                dots_packed(block, block_scales, codes, totals, sums, 4, group, groups, ROWS_AT_ONCE);
            else if (count > 1)
                dots_packed(block, block_scales, codes, totals, sums, 2, group, groups, ROWS_AT_ONCE);
            else
                dots_packed(block, block_scales, codes, totals, sums, bits, group, groups, 1);
            for (int row = 0; row < count; row++, output++)
                out[output] = sums[row] * scale + (bias ? from_bfloat16(bias[output]) : 0);
        }
    }
    free(wide);
    free(codes);
    free(totals);
    return failed;
}

/* out (rows, width) = FATReLU(hidden (rows, width) up^T + up_bias) down + down_bias: int8 weights with a scale per
   output, int8 activations with a scale per row; either bias may be NULL. Returns 0, or 1 if out of memory. */
int feed_forward_int8(const float *hidden, const int8_t *up, const float *up_scale, const float *up_bias,
                      float threshold, const int8_t *down, const float *down_scale, const float *down_bias, float *out,
                      int64_t rows, int64_t neurons, int64_t width)
{
    int16_t *quantized = malloc(width * sizeof *quantized);
    int32_t *sums = malloc(width * sizeof *sums);
    float *active = malloc(neurons * sizeof *active);
    const int failed = !quantized || !sums || !active;
    for (int64_t row = 0; !failed && row < rows; row++, hidden += width, out += width) {
        const float scale = quantize(hidden, quantized, width, 0);
        for (int64_t neuron = 0; neuron < neurons; neuron++) {
            const float sum = (float)dot_int8(quantized, up + neuron * width, width) * scale;
            const float value = sum * up_scale[neuron] + (up_bias ? up_bias[neuron] : 0);
            active[neuron] = value <= threshold ? 0 : value; /* NaN stays */
        }
        const float active_scale = scale_of(active, neurons);
        sparse_sums(active, divisor_of(active_scale), down, sums, neurons, width);
        for (int64_t i = 0; i < width; i++)
            out[i] = (float)sums[i] * active_scale * down_scale[i] + (down_bias ? down_bias[i] : 0);
    }
    free(quantized);
    free(sums);
    free(active);
    return failed;
}
