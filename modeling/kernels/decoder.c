/* Forward pass of a whole decoder for a token per row, in a single call instead of a hundred torch operations. Rows are
   computed `rows_together` at a time, each as it would be alone: weights are read once for all of them.

   Layouts are those of `modeling.transformer`: queries, keys and values head by head, a key-value cache (rows,
   capacity, heads, 2, head_width) per layer. The structures are mirrored in `modeling.decoding.native_decoder`. */

#include "products.h"

int linear_int8(const float *, const int8_t *, const float *, const float *, float *, float, int64_t, int64_t, int64_t);
int linear_packed(const float *, const uint8_t *, const uint16_t *, const uint16_t *, float *, int64_t, int64_t, int64_t,
                  int64_t, int64_t);
void sparse_product(const float *, const float *, const float *, float *, int64_t, int64_t, int64_t);
int feed_forward_int8(const float *, const int8_t *, const float *, const float *, float, const int8_t *, const float *,
                      const float *, float *, int64_t, int64_t, int64_t);

enum { ABSENT, FLOAT, INT8, PACKED };

/* Largest code of a value's weight, and entries whose weights times values fit 32 bits: 512 x 32,767 x 127 < 2^31. */
enum { MAX_WEIGHT = 32767, EXACT_ENTRIES = 512 };

struct matrix {
    int64_t kind, outputs, inputs, bits, group;
    const void *weights, *scales, *bias;
    float input_scale;
};

/* second(first(x)) if low-rank; a plain layer has no second matrix. */
struct linear {
    struct matrix first, second;
};

struct norm {
    const float *weight, *bias;
};

struct layer {
    struct norm attention_norm, feed_forward_norm;
    struct linear query_key_value, output, up, down;
    const void *down_by_neuron; /* (neurons, width) if neurons with activation zero are skipped, else NULL */
    int64_t heads;
    float threshold; /* activations up to it are zero */
    float scale;
    void *entries;
    float *entry_scales; /* NULL if the cache is float */
};

struct decoder {
    int64_t layers_count, width, head_width, capacity, max_width, rows_together;
    float epsilon, residual_multiplier, logit_multiplier;
    const float *frequencies; /* (head_width / 2): rotation angle of each pair per position */
    struct matrix embedding;
    struct norm final_norm;
    struct linear head;
    struct layer *layers;
    float *scratch;
};

/* out (rows, outputs) = in (rows, inputs) weights^T + bias. */
static void apply_float(const struct matrix *matrix, const float *in, float *out, int64_t rows)
{
    const int64_t inputs = matrix->inputs, outputs = matrix->outputs;
    const float *bias = matrix->bias;
    for (int64_t output = 0; output < outputs; output++) {
        const float *weights = (const float *)matrix->weights + output * inputs, added = bias ? bias[output] : 0;
        int64_t row = 0;
        for (; row + ROWS_OF_DOTS <= rows; row += ROWS_OF_DOTS)
            dots_float(weights, in + row * inputs, inputs, out + row * outputs + output, outputs, added, ROWS_OF_DOTS);
        for (; row < rows; row++)
            dots_float(weights, in + row * inputs, inputs, out + row * outputs + output, outputs, added, 1);
    }
}

static int apply_matrix(const struct matrix *matrix, const float *in, float *out, int64_t rows)
{
    if (matrix->kind == INT8)
        return linear_int8(in, matrix->weights, matrix->scales, matrix->bias, out, matrix->input_scale, rows,
                           matrix->outputs, matrix->inputs);
    if (matrix->kind == PACKED)
        return linear_packed(in, matrix->weights, matrix->scales, matrix->bias, out, matrix->bits, matrix->group, rows,
                             matrix->outputs, matrix->inputs);
    apply_float(matrix, in, out, rows);
    return 0;
}

static int apply(const struct linear *linear, const float *in, float *out, float *between, int64_t rows)
{
    if (linear->second.kind == ABSENT)
        return apply_matrix(&linear->first, in, out, rows);
    return apply_matrix(&linear->first, in, between, rows) || apply_matrix(&linear->second, between, out, rows);
}

static int64_t outputs_of(const struct linear *linear)
{
    return linear->second.kind == ABSENT ? linear->first.outputs : linear->second.outputs;
}

static void embed(const struct matrix *table, int64_t token, float *out)
{
    const int64_t width = table->inputs, group = table->group;
    if (table->kind == FLOAT) {
        memcpy(out, (const float *)table->weights + token * width, width * sizeof *out);
    } else if (table->kind == INT8) {
        const int8_t *codes = (const int8_t *)table->weights + token * width;
        for (int64_t i = 0; i < width; i++)
            out[i] = codes[i] * ((const float *)table->scales)[token];
    } else {
        const int64_t groups = (width + group - 1) / group, bytes = group * table->bits / 8;
        const uint8_t *packed = (const uint8_t *)table->weights + token * groups * bytes;
        const uint16_t *scales = (const uint16_t *)table->scales + token * groups;
        const float zero_point = table->bits == 4 ? 8.0f : 1.5f;
        for (int64_t i = 0; i < width; i++) {
            const int64_t index = i % group;
            const int code = packed[i / group * bytes + index % bytes] >> index / bytes * table->bits;
            out[i] = ((float)(code & ((1 << table->bits) - 1)) - zero_point) * from_bfloat16(scales[i / group]);
        }
    }
}

static void normalize(const struct norm *norm, const float *in, float *out, int64_t width, float epsilon)
{
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; i++)
        mean += in[i];
    mean /= (double)width;
    for (int64_t i = 0; i < width; i++)
        variance += (in[i] - mean) * (in[i] - mean);
    const float factor = (float)(1 / sqrt(variance / (double)width + epsilon));
    for (int64_t i = 0; i < width; i++)
        out[i] = (in[i] - (float)mean) * factor * norm->weight[i] + norm->bias[i];
}

/* Rotate each pair (a, b) to (a cos - b sin, b cos + a sin). */
static void rotate(float *vector, const float *cosines, const float *sines, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++) {
        const float a = vector[i], b = vector[i + pairs];
        vector[i] = a * cosines[i] - b * sines[i];
        vector[i + pairs] = b * cosines[i] + a * sines[i];
    }
}

/* Write a key or value to the cache. */
static void store(const struct layer *layer, int64_t entry, const float *vector, int64_t width)
{
    if (!layer->entry_scales) {
        memcpy((float *)layer->entries + entry * width, vector, width * sizeof *vector);
        return;
    }
    int8_t *codes = (int8_t *)layer->entries + entry * width;
    const float scale = layer->entry_scales[entry] = scale_of(vector, width), divisor = divisor_of(scale);
    for (int64_t i = 0; i < width; i++)
        codes[i] = (int8_t)code_of(vector[i], divisor);
}

/* Weights exp(score - maximum) in place of `count` scores; returns their sum. */
static float weights_of(float *scores, int64_t count)
{
    float largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < count; i++)
        largest = scores[i] > largest ? scores[i] : largest;
    for (int64_t i = 0; i < count; i++)
        total += scores[i] = expf(scores[i] - largest);
    return total;
}

/* mixed (width) = attention of a query over `count` entries; entry i is the `i * step`-th after `first`, a key, and its
   value is the next. */
static void attend_float(const float *query, const float *first, int64_t step, int64_t count, float scale,
                         float *scores, float *restrict mixed, int64_t width)
{
    for (int64_t i = 0; i < count; i++)
        scores[i] = dot_float(query, first + i * step * width, width) * scale;
    const float total = weights_of(scores, count);
    memset(mixed, 0, width * sizeof *mixed);
    for (int64_t i = 0; i < count; i++) {
        const float weight = scores[i] / total, *restrict value = first + (i * step + 1) * width;
        for (int64_t k = 0; k < width; k++)
            mixed[k] += weight * value[k];
    }
}

/* mixed (width) += `factor` x sums over entries of weights, in 15 bits, times int8 values that are `stride` apart. */
static void add_values(const float *weights, float divisor, float factor, const int8_t *values, int64_t stride,
                       int64_t count, int32_t *restrict sums, float *restrict mixed, int64_t width)
{
    memset(sums, 0, width * sizeof *sums);
    for (int64_t i = 0; i < count; i++) {
        const float rounded = rintf(weights[i] / divisor);
        const int32_t code = rounded >= 0 ? rounded > MAX_WEIGHT ? MAX_WEIGHT : (int32_t)rounded : 0; /* 0 for NaN */
        const int8_t *restrict value = values + i * stride;
        if (code)
            for (int64_t k = 0; k < width; k++)
                sums[k] += code * value[k];
    }
    for (int64_t k = 0; k < width; k++)
        mixed[k] += (float)sums[k] * factor;
}

/* As `attend_float`, by integer products: `modeling.attention.int8_cache.integer_attention`. `codes` and `sums` are
   buffers (width). */
static void attend_int8(const float *query, const int8_t *first, const float *scales, int64_t step, int64_t count,
                        float scale, float *scores, int16_t *codes, int32_t *sums, float *mixed, int64_t width)
{
    const float query_scale = quantize(query, codes, width, 0) * scale;
    for (int64_t i = 0; i < count; i++)
        scores[i] = (float)dot_int8(codes, first + i * step * width, width) * query_scale * scales[i * step];
    const float total = weights_of(scores, count);
    float largest = 0, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += scores[i] *= scales[i * step + 1];
        largest = scores[i] > largest ? scores[i] : largest;
    }
    const float weight_scale = (isnan(sum) ? sum : largest) / MAX_WEIGHT, divisor = divisor_of(weight_scale);
    memset(mixed, 0, width * sizeof *mixed);
    for (int64_t i = 0; i < count; i += EXACT_ENTRIES)
        add_values(scores + i, divisor, weight_scale / total, first + (i * step + 1) * width, step * width,
                   count - i < EXACT_ENTRIES ? count - i : EXACT_ENTRIES, sums, mixed, width);
}

/* Attention of each head over the entries up to `position`; `mixed` is (heads, head_width). */
static void attend(const struct decoder *decoder, const struct layer *layer, int64_t row, int64_t position,
                   const float *rotation, float *projected, float *mixed, float *scores)
{
    const int64_t width = decoder->head_width, step = layer->heads * 2;
    const float *cosines = rotation, *sines = rotation + width / 2;
    int16_t *codes = (int16_t *)(scores + decoder->capacity);
    int32_t *sums = (int32_t *)(scores + decoder->capacity + width);
    for (int64_t head = 0; head < layer->heads; head++, mixed += width) {
        float *query = projected + head * 3 * width, *key = query + width, *value = key + width;
        const int64_t first = row * decoder->capacity * step + head * 2, own = first + position * step;
        rotate(query, cosines, sines, width / 2);
        rotate(key, cosines, sines, width / 2);
        store(layer, own, key, width);
        store(layer, own + 1, value, width);
        if (layer->entry_scales)
            attend_int8(query, (const int8_t *)layer->entries + first * width, layer->entry_scales + first, step,
                        position + 1, layer->scale, scores, codes, sums, mixed, width);
        else
            attend_float(query, (const float *)layer->entries + first * width, step, position + 1, layer->scale,
                         scores, mixed, width);
    }
}

/* `wide` is a buffer (rows, neurons). */
static int feed_forward(const struct layer *layer, const float *normed, float *update, float *wide, float *between,
                        int64_t rows, int64_t width)
{
    const struct matrix *up = &layer->up.first, *down = &layer->down.first;
    const int64_t neurons = down->inputs;
    if (layer->down_by_neuron && down->kind == INT8)
        return feed_forward_int8(normed, up->weights, up->scales, up->bias, layer->threshold, layer->down_by_neuron,
                                 down->scales, down->bias, update, rows, neurons, width);
    const int failed = apply(&layer->up, normed, wide, between, rows);
    for (int64_t i = 0; i < rows * neurons; i++)
        wide[i] = wide[i] <= layer->threshold ? 0 : wide[i]; /* NaN stays */
    if (layer->down_by_neuron) {
        sparse_product(wide, layer->down_by_neuron, down->bias, update, rows, neurons, width);
        return failed;
    }
    return failed | apply(&layer->down, wide, update, between, rows);
}

static void normalize_rows(const struct norm *norm, const float *in, float *out, int64_t rows, int64_t width,
                           float epsilon)
{
    for (int64_t row = 0; row < rows; row++)
        normalize(norm, in + row * width, out + row * width, width, epsilon);
}

static void add_update(float *stream, const float *update, float multiplier, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        stream[i] += multiplier * update[i];
}

/* `decode` for at most `rows_together` rows. */
static int decode_block(const struct decoder *decoder, int64_t first_row, int64_t rows, const int64_t *tokens,
                        const int64_t *positions, float *logits)
{
    const int64_t width = decoder->width, head_width = decoder->head_width, together = decoder->rows_together;
    float *scores = decoder->scratch, *rotations = scores + decoder->capacity + 2 * head_width; /* see `attend` */
    float *stream = rotations + together * head_width, *normed = stream + together * width;
    float *update = normed + together * width, *between = update + together * width;
    float *wide = between + together * decoder->max_width, *mixed = wide + together * decoder->max_width;
    int failed = 0;
    for (int64_t row = 0; row < rows; row++) {
        float *rotation = rotations + row * head_width;
        for (int64_t i = 0; i < head_width / 2; i++) {
            const float angle = (float)positions[row] * decoder->frequencies[i];
            rotation[i] = cosf(angle);
            rotation[i + head_width / 2] = sinf(angle);
        }
        embed(&decoder->embedding, tokens[row], stream + row * width);
    }
    for (int64_t index = 0; index < decoder->layers_count; index++) {
        const struct layer *layer = decoder->layers + index;
        const int64_t projected = outputs_of(&layer->query_key_value), heads = layer->heads * head_width;
        normalize_rows(&layer->attention_norm, stream, normed, rows, width, decoder->epsilon);
        failed |= apply(&layer->query_key_value, normed, wide, between, rows);
        for (int64_t row = 0; row < rows; row++)
            attend(decoder, layer, first_row + row, positions[row], rotations + row * head_width,
                   wide + row * projected, mixed + row * heads, scores);
        failed |= apply(&layer->output, mixed, update, between, rows);
        add_update(stream, update, decoder->residual_multiplier, rows * width);
        normalize_rows(&layer->feed_forward_norm, stream, normed, rows, width, decoder->epsilon);
        failed |= feed_forward(layer, normed, update, wide, between, rows, width);
        add_update(stream, update, decoder->residual_multiplier, rows * width);
    }
    if (!logits)
        return failed;
    normalize_rows(&decoder->final_norm, stream, normed, rows, width, decoder->epsilon);
    for (int64_t i = 0; i < rows * width; i++)
        normed[i] *= decoder->logit_multiplier;
    return failed | apply(&decoder->head, normed, logits, between, rows);
}

/* Append a token to each of the rows from `first_row` on, at the given positions, and compute the logits (rows,
   vocabulary) after it, unless `logits` is NULL. Returns 0, or 1 if out of memory. */
int decode(const struct decoder *decoder, int64_t first_row, int64_t rows, const int64_t *tokens,
           const int64_t *positions, float *logits)
{
    const int64_t together = decoder->rows_together, vocabulary = outputs_of(&decoder->head);
    int failed = 0;
    for (int64_t row = 0; row < rows; row += together)
        failed |= decode_block(decoder, first_row + row, rows - row < together ? rows - row : together, tokens + row,
                               positions + row, logits ? logits + row * vocabulary : NULL);
    return failed;
}
