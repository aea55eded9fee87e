/* Forward pass of a whole decoder for a token per row, in a single call instead of a hundred torch operations.

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
    int64_t layers_count, width, head_width, capacity, max_width;
    float epsilon, residual_multiplier, logit_multiplier;
    const float *frequencies; /* (head_width / 2): rotation angle of each pair per position */
    struct matrix embedding;
    struct norm final_norm;
    struct linear head;
    struct layer *layers;
    float *scratch;
};

static int apply_matrix(const struct matrix *matrix, const float *in, float *out)
{
    if (matrix->kind == INT8)
        return linear_int8(in, matrix->weights, matrix->scales, matrix->bias, out, matrix->input_scale, 1,
                           matrix->outputs, matrix->inputs);
    if (matrix->kind == PACKED)
        return linear_packed(in, matrix->weights, matrix->scales, matrix->bias, out, matrix->bits, matrix->group, 1,
                             matrix->outputs, matrix->inputs);
    const float *weights = matrix->weights, *bias = matrix->bias;
    for (int64_t output = 0; output < matrix->outputs; output++)
        out[output] = dot_float(weights + output * matrix->inputs, in, matrix->inputs) + (bias ? bias[output] : 0);
    return 0;
}

static int apply(const struct linear *linear, const float *in, float *out, float *between)
{
    if (linear->second.kind == ABSENT)
        return apply_matrix(&linear->first, in, out);
    return apply_matrix(&linear->first, in, between) || apply_matrix(&linear->second, between, out);
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

/* Write a key or value to the cache; `score` and `add_value` read them. */
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

static float score(const struct layer *layer, int64_t entry, const float *query, int64_t width)
{
    if (!layer->entry_scales)
        return dot_float(query, (const float *)layer->entries + entry * width, width);
    return dot_float_int8(query, (const int8_t *)layer->entries + entry * width, width) * layer->entry_scales[entry];
}

static void add_value(const struct layer *layer, int64_t entry, float share, float *restrict out, int64_t width)
{
    if (!layer->entry_scales) {
        const float *restrict value = (const float *)layer->entries + entry * width;
        for (int64_t i = 0; i < width; i++)
            out[i] += share * value[i];
        return;
    }
    const int8_t *restrict codes = (const int8_t *)layer->entries + entry * width;
    share *= layer->entry_scales[entry];
    for (int64_t i = 0; i < width; i++)
        out[i] += share * codes[i];
}

/* Attention of each head over the entries up to `position`; `mixed` is (heads, head_width). */
static void attend(const struct decoder *decoder, const struct layer *layer, int64_t row, int64_t position,
                   const float *rotation, float *projected, float *mixed, float *scores)
{
    const int64_t width = decoder->head_width, first = row * decoder->capacity, step = layer->heads * 2;
    const float *cosines = rotation, *sines = rotation + width / 2;
    for (int64_t head = 0; head < layer->heads; head++, mixed += width) {
        float *query = projected + head * 3 * width, *key = query + width, *value = key + width;
        const int64_t own = (first + position) * step + head * 2;
        rotate(query, cosines, sines, width / 2);
        rotate(key, cosines, sines, width / 2);
        store(layer, own, key, width);
        store(layer, own + 1, value, width);
        float largest = -INFINITY, total = 0;
        for (int64_t i = 0; i <= position; i++) {
            scores[i] = score(layer, (first + i) * step + head * 2, query, width) * layer->scale;
            largest = scores[i] > largest ? scores[i] : largest;
        }
        for (int64_t i = 0; i <= position; i++)
            total += scores[i] = expf(scores[i] - largest);
        memset(mixed, 0, width * sizeof *mixed);
        for (int64_t i = 0; i <= position; i++)
            add_value(layer, (first + i) * step + head * 2 + 1, scores[i] / total, mixed, width);
    }
}

/* `wide` is a buffer (neurons). */
static int feed_forward(const struct layer *layer, const float *normed, float *update, float *wide, float *between,
                        int64_t width)
{
    const struct matrix *up = &layer->up.first, *down = &layer->down.first;
    const int64_t neurons = down->inputs;
    if (layer->down_by_neuron && down->kind == INT8)
        return feed_forward_int8(normed, up->weights, up->scales, up->bias, layer->threshold, layer->down_by_neuron,
                                 down->scales, down->bias, update, 1, neurons, width);
    const int failed = apply(&layer->up, normed, wide, between);
    for (int64_t i = 0; i < neurons; i++)
        wide[i] = wide[i] <= layer->threshold ? 0 : wide[i]; /* NaN stays */
    if (layer->down_by_neuron) {
        sparse_product(wide, layer->down_by_neuron, down->bias, update, 1, neurons, width);
        return failed;
    }
    return failed | apply(&layer->down, wide, update, between);
}

/* Append a token to each of the rows from `first_row` on, at the given positions, and compute the logits (rows,
   vocabulary) after it, unless `logits` is NULL. Returns 0, or 1 if out of memory. */
int decode(const struct decoder *decoder, int64_t first_row, int64_t rows, const int64_t *tokens,
           const int64_t *positions, float *logits)
{
    const int64_t width = decoder->width;
    float *stream = decoder->scratch, *normed = stream + width, *update = normed + width, *scores = update + width;
    float *rotation = scores + decoder->capacity, *between = rotation + decoder->head_width;
    float *wide = between + decoder->max_width, *mixed = wide + decoder->max_width;
    int failed = 0;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < decoder->head_width / 2; i++) {
            const float angle = (float)positions[row] * decoder->frequencies[i];
            rotation[i] = cosf(angle);
            rotation[i + decoder->head_width / 2] = sinf(angle);
        }
        embed(&decoder->embedding, tokens[row], stream);
        for (int64_t index = 0; index < decoder->layers_count; index++) {
            const struct layer *layer = decoder->layers + index;
            normalize(&layer->attention_norm, stream, normed, width, decoder->epsilon);
            failed |= apply(&layer->query_key_value, normed, wide, between);
            attend(decoder, layer, first_row + row, positions[row], rotation, wide, mixed, scores);
            failed |= apply(&layer->output, mixed, update, between);
            for (int64_t i = 0; i < width; i++)
                stream[i] += decoder->residual_multiplier * update[i];
            normalize(&layer->feed_forward_norm, stream, normed, width, decoder->epsilon);
            failed |= feed_forward(layer, normed, update, wide, between, width);
            for (int64_t i = 0; i < width; i++)
                stream[i] += decoder->residual_multiplier * update[i];
        }
        if (!logits)
            continue;
        normalize(&decoder->final_norm, stream, normed, width, decoder->epsilon);
        for (int64_t i = 0; i < width; i++)
            normed[i] *= decoder->logit_multiplier;
        failed |= apply(&decoder->head, normed, logits, between);
        const struct linear *head = &decoder->head;
        logits += head->second.kind == ABSENT ? head->first.outputs : head->second.outputs;
    }
    return failed;
}
