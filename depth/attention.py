"""Attention in compiled networks: one loop over heads in place of torch's three steps, with the same products.

torch's own first needs queries, keys and values of each head in one place, and multiplies blocks of 64 queries by
MKL, which puts both factors into an order of its own at each call. Here keys and values of a head are put in order
once, and six queries at a time are multiplied in registers with all of them (Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication", ACM TOMS 34, 2008). The softmax goes over blocks of keys, and what came
before a block is rescaled by it (Dao et al., "FlashAttention", arXiv:2205.14135), so memory grows with the tokens
and not with their square.

torch's compiler learns of it by a template, as of its own matrix products. That is no public interface, so who compiles
goes on without it where it fails. Importing this module imports the compiler.
"""

from __future__ import annotations

import sys

import torch
import torch._inductor.lowering  # the first of the compiler's files: the others import each other in circles
from torch import nn
from torch._inductor import ir
from torch._inductor.codegen.cpp_template import CppTemplate

from depth.networks import encoders
from depth.tuning import vectors

WIDTHS = {"AVX2": 16, "AVX512": 64}  # columns that are multiplied at once; the channels of a head are a multiple

SOURCE = r"""
{{header}}
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#ifndef DEPTHMAP_ATTENTION
#define DEPTHMAP_ATTENTION
namespace depthmap {
using Vec = at::vec::Vectorized<float>;
// A tile's sums fill the registers: 24 of 32, or 12 of 16. Queries and keys at a time: so many that their scores
// stay in a core's second cache.
constexpr int64_t LANES = Vec::size(), VECTORS = LANES == 16 ? 4 : 2, COLUMNS = LANES * VECTORS, ROWS = 6;
constexpr int64_t QUERIES = 16 * ROWS, KEYS = 768;

// y[rows, COLUMNS] = x[rows, depth] @ panel[depth, COLUMNS], added to what is there if it goes `onto` it.
// Not to be cloned: GCC forgets to unroll the loop of a clone.
template <int rows>
__attribute__((noinline, noclone)) static void tile(
    const float* x, int64_t ldx, const float* panel, int64_t depth, float* y, int64_t ldy, bool onto) {
    Vec sums[rows][VECTORS];
    #pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
        #pragma GCC unroll 16
        for (int v = 0; v < VECTORS; v++) sums[i][v] = onto ? Vec::loadu(y + i * ldy + v * LANES) : Vec(0.0f);
    #pragma GCC unroll 4
    for (int64_t k = 0; k < depth; k++) {
        Vec line[VECTORS];
        #pragma GCC unroll 16
        for (int v = 0; v < VECTORS; v++) line[v] = Vec::loadu(panel + k * COLUMNS + v * LANES);
        #pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const Vec factor(x[i * ldx + k]);
            #pragma GCC unroll 16
            for (int v = 0; v < VECTORS; v++) sums[i][v] = at::vec::fmadd(factor, line[v], sums[i][v]);
        }
    }
    #pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
        #pragma GCC unroll 16
        for (int v = 0; v < VECTORS; v++) sums[i][v].store(y + i * ldy + v * LANES);
}

template <int most = ROWS>
static void tiles(int64_t rows, const float* x, int64_t ldx, const float* panel, int64_t depth, float* y, int64_t ldy,
                  bool onto) {
    if constexpr (most > 0) {
        if (rows >= most) {
            tile<most>(x, ldx, panel, depth, y, ldy, onto);
            if (rows > most) tiles<most>(rows - most, x + most * ldx, ldx, panel, depth, y + most * ldy, ldy, onto);
        } else {
            tiles<most - 1>(rows, x, ldx, panel, depth, y, ldy, onto);
        }
    }
}

// Tokens as columns, COLUMNS of them to a panel of `depth` lines; what is left of the last panel is not written.
static void turn(const float* from, int64_t line, int64_t tokens, int64_t depth, float* to) {
    int64_t j = 0;
    for (; j + LANES <= tokens; j += LANES)
        for (int64_t d = 0; d < depth; d += LANES)
            at::vec::transpose_mxn<float, LANES, LANES>(
                from + j * line + d, line, to + j / COLUMNS * COLUMNS * depth + d * COLUMNS + j % COLUMNS, COLUMNS);
    for (; j < tokens; j++)
        for (int64_t d = 0; d < depth; d++)
            to[j / COLUMNS * COLUMNS * depth + d * COLUMNS + j % COLUMNS] = from[j * line + d];
}

static float reduced(Vec values, bool largest) {
    return largest
        ? at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return at::vec::maximum(a, b); }, values)
        : at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, values);
}
}
#endif

extern "C" {{kernel.def_kernel(inputs={"X": X, "bias": bias}, outputs={"Y": Y})}}
{
    using namespace depthmap;
    constexpr int64_t HEADS = {{heads}}, D = {{width}}, C = HEADS * D, LINE = 3 * C;
    static_assert(D % COLUMNS == 0);
    const int64_t B = {{kernel.size(Y, 0)}}, T = {{kernel.size(Y, 1)}}, N = T - {{idle}};
    const int64_t up = (N + COLUMNS - 1) / COLUMNS * COLUMNS;
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    // A head is one piece of work, or several where there are more threads than heads.
    const int64_t parts = std::max<int64_t>(1, 2 * omp_get_max_threads() / (B * HEADS));
    const int64_t part = (N + parts - 1) / parts;
    #pragma omp parallel
    {
        float* room = static_cast<float*>(
            std::aligned_alloc(64, (2 * up * D + QUERIES * (KEYS + 2 * D)) * sizeof(float)));
        float *keys = room, *values = keys + up * D, *scores = values + up * D;
        float *queries = scores + QUERIES * KEYS, *sums = queries + QUERIES * D;
        std::fill_n(keys, up * D, 0.0f);
        float largest[QUERIES], total[QUERIES];
        #pragma omp for schedule(dynamic)
        for (int64_t work = 0; work < B * HEADS * parts; work++) {
            const int64_t head = work / parts, first = work % parts * part, end = std::min(N, first + part);
            const float* query = &{{kernel.index(X, ["0", "0", "0"])}} + head / HEADS * T * LINE + head % HEADS * D;
            const float *key = query + C, *value = key + C;
            float* y = Y + head / HEADS * T * C + head % HEADS * D;
            turn(key, LINE, N, D, keys);
            for (int64_t j = 0; j < N; j++)
                for (int64_t d = 0; d < D; d += COLUMNS)
                    for (int64_t v = 0; v < COLUMNS; v += LANES)
                        Vec::loadu(value + j * LINE + d + v).store(values + d * up + j * COLUMNS + v);
            for (int64_t m = first; m < end; m += QUERIES) {
                const int64_t rows = std::min(QUERIES, end - m);
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t d = 0; d < D; d += LANES)
                        (Vec::loadu(query + (m + i) * LINE + d) * Vec(scale)).store(queries + i * D + d);
                std::fill_n(largest, rows, -std::numeric_limits<float>::infinity());
                std::fill_n(total, rows, 0.0f);
                for (int64_t b = 0; b < N; b += KEYS) {
                    const int64_t count = std::min(KEYS, N - b), whole = (count + LANES - 1) / LANES * LANES;
                    for (int64_t j = 0; j < count; j += COLUMNS)
                        tiles(rows, queries, D, keys + (b + j) * D, D, scores + j, KEYS, false);
                    for (int64_t i = 0; i < rows; i++) {
                        float* row = scores + i * KEYS;
{%- if bias %}
                        const float* more =
                            &{{kernel.index(bias, ["0", "0", "0", "0"])}} + (head % HEADS * N + m + i) * N + b;
                        int64_t j = 0;
                        for (; j + LANES <= count; j += LANES)
                            (Vec::loadu(row + j) + Vec::loadu(more + j)).store(row + j);
                        for (; j < count; j++) row[j] += more[j];
{%- endif %}
                        std::fill(row + count, row + whole, -std::numeric_limits<float>::infinity());
                        Vec top(largest[i]), sum(0.0f);
                        for (int64_t j = 0; j < whole; j += LANES) top = at::vec::maximum(top, Vec::loadu(row + j));
                        const float now = reduced(top, true), before = std::exp(largest[i] - now);
                        for (int64_t j = 0; j < whole; j += LANES) {
                            const Vec share = (Vec::loadu(row + j) - Vec(now)).exp_u20();
                            share.store(row + j);
                            sum = sum + share;
                        }
                        largest[i] = now;
                        total[i] = total[i] * before + reduced(sum, false);
                        if (b > 0)
                            for (int64_t d = 0; d < D; d += LANES)
                                (Vec::loadu(sums + i * D + d) * Vec(before)).store(sums + i * D + d);
                    }
                    for (int64_t d = 0; d < D; d += COLUMNS)
                        tiles(rows, scores, KEYS, values + d * up + b * COLUMNS, count, sums + d, D, b > 0);
                }
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t d = 0; d < D; d += LANES)
                        (Vec::loadu(sums + i * D + d) / Vec(total[i])).store(y + (m + i) * C + d);
            }
            if (end == N)
                for (int64_t i = N; i < T; i++) std::fill_n(y + i * C, D, 0.0f);
        }
        std::free(room);
    }
}
"""


@torch.library.custom_op("depthmap::attend", mutates_args=())
def attend(qkv: torch.Tensor, heads: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`encoders.attend`, as one step for the compiler."""
    return encoders.attend(qkv, heads, bias)


@attend.register_fake
def _shape(qkv: torch.Tensor, heads: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    return qkv.new_empty(qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3)


class _Template(CppTemplate):
    def __init__(self, inputs: list, layout: ir.Layout, heads: int):
        super().__init__("attend", inputs, layout, num_threads=1)  # the loop takes as many as there are when it runs
        self.heads = heads

    def render(self, kernel, template_buffer_node=None, epilogue_nodes=None, **_) -> str:
        if epilogue_nodes:
            raise NotImplementedError("attention with another step behind it")
        qkv, *bias = self.input_nodes
        return self._template_from_string(SOURCE).render(
            header=self.header().getvalue(), kernel=kernel, X=qkv, bias=bias[0] if bias else None,
            Y=template_buffer_node or self.output_node, heads=self.heads, width=qkv.get_size()[2] // 3 // self.heads,
            idle=encoders.IDLE)


@torch._inductor.lowering.register_lowering(torch.ops.depthmap.attend.default, type_promotion_kind=None)
def _lowered(qkv, heads, bias=None):
    inputs = [ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(given))
              for given in (qkv, bias) if given is not None]
    batch, tokens, channels = inputs[0].get_size()
    layout = ir.FixedLayout(qkv.get_device(), qkv.get_dtype(), [batch, tokens, channels // 3])
    return _Template(inputs, layout, heads).generate().output_node()


def fuse(network: nn.Module) -> bool:
    """Let the network's plain transformer attend by this loop. Can it be compiled here, and is there one?"""
    width = WIDTHS.get(vectors()) if sys.platform == "linux" else None
    found = [encoder for encoder in network.modules() if isinstance(encoder, encoders.VitEncoder)]
    fits = width is not None and all(
        block.attn.qkv.out_features // 3 // block.attn.num_heads % width == 0
        for encoder in found for block in encoder.model.blocks)
    for encoder in found if fits else ():
        encoder.attend = attend
    return bool(found) and fits
