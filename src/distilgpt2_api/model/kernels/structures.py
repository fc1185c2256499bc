"""The structures of `native/model.h`, as ctypes has them. Fields stand in the same order there."""

import ctypes

from distilgpt2_api.core.config import Activation, Precision

PRECISIONS = {Precision.INT8: 0, Precision.BF16: 1, Precision.F32: 2}
ACTIVATIONS = {
    Activation.GELU_TANH: 0,
    Activation.GELU_ERF: 1,
    Activation.RELU: 2,
    Activation.SILU: 3,
    Activation.TANH: 4,
}


class Matrix(ctypes.Structure):
    _fields_ = [
        ("panels", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("num_columns", ctypes.c_int32),
        ("depth", ctypes.c_int32),
    ]


class Norm(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)]


class Layer(ctypes.Structure):
    _fields_ = [
        ("norm_1", Norm),
        ("qkv", Matrix),
        ("projection", Matrix),
        ("norm_2", Norm),
        ("up", Matrix),
        ("down", Matrix),
        ("attention_scale", ctypes.c_float),
        ("unused", ctypes.c_int32),
    ]


class Model(ctypes.Structure):
    _fields_ = [
        ("precision", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("num_layers", ctypes.c_int32),
        ("num_heads", ctypes.c_int32),
        ("head_size", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("inner_width", ctypes.c_int32),
        ("vocab_size", ctypes.c_int32),
        ("layer_norm_epsilon", ctypes.c_float),
        ("num_blocks", ctypes.c_int32),
        ("layers", ctypes.c_void_p),
        ("final_norm", Norm),
        ("embedding", Matrix),
        ("head", Matrix),
        ("positions", ctypes.c_void_p),
        ("cache", ctypes.c_void_p),
    ]


class Draws(ctypes.Structure):
    _fields_ = [
        ("num_draws", ctypes.c_int32),
        ("num_edited", ctypes.c_int32),
        ("max_top", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("draws", ctypes.c_void_p),
        ("token_ids", ctypes.c_void_p),
        ("largest", ctypes.c_void_p),
        ("surprisals", ctypes.c_void_p),
        ("logprobs", ctypes.c_void_p),
        ("top_ids", ctypes.c_void_p),
        ("top_logprobs", ctypes.c_void_p),
    ]


class Step(ctypes.Structure):
    _fields_ = [
        ("num_tokens", ctypes.c_int32),
        ("num_sequences", ctypes.c_int32),
        ("inputs", ctypes.c_void_p),
        ("draws", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    ]
