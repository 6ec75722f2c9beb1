"""Code that calls operators that trust their arguments, or reach outside the tensors that they are given."""

from __future__ import annotations

from .builder import forge
from .case import Case, add

_ERROR = "OperatorNotAllowedError"
_HUGE = "i = torch.full([1, 1, 2, 2], 1099511627776, dtype=4)"
_X = "x = torch.ones([1, 1, 4, 4], dtype=6)"
_V = "v = torch.ones([4], dtype=6)"
_I = "i = torch.full([4], 1099511627776, dtype=4)"


def _body(name: str, *lines: str) -> None:
    # Named for the operator: each is refused by its name, whatever it is given.
    body = "\n".join([*lines, "return (y,)"])
    add(Case("operator", name, f"code that calls {name}", lambda base: forge(base, body), "refused", _ERROR))


def _code(name: str, what: str, *lines: str) -> None:
    body = "\n".join([*lines, "y = torch.zeros([2, 3], dtype=6)", "return (y,)"])
    add(Case("source", name, what, lambda base: forge(base, body), "refused", _ERROR))


# Indices that are made by a forward pass and trusted by the backward one.
_POOL = "[2, 2], [2, 2], [0, 0], [1, 1], False"
_body("max_pool2d_with_indices_backward", _X, _HUGE, f"y = torch.max_pool2d_with_indices_backward(x, x, {_POOL}, i)")
_body("max_unpool2d", _X, _HUGE, "y = torch.max_unpool2d(x, i, [4, 4])")
_body("max_unpool3d", _X, _HUGE, "y = torch.max_unpool3d(x, i, [4, 4, 4], [2, 2, 2], [0, 0, 0])")
_body("adaptive_max_pool2d_backward", _X, _HUGE, "y = torch.adaptive_max_pool2d_backward(x, x, i)")
_body("fractional_max_pool2d", _X, "y, i = torch.fractional_max_pool2d(x, [2, 2], [2, 2], x)")
_body("fractional_max_pool2d_backward", _X, _HUGE, "y = torch.fractional_max_pool2d_backward(x, x, [2, 2], [2, 2], i)")
_body("avg_pool2d_backward", _X, "y = torch.avg_pool2d_backward(x, x, [2, 2], [2, 2], [0, 0], False, True, None)")
_body("embedding_dense_backward", _X, _HUGE, "y = torch.embedding_dense_backward(x, i, 1099511627776, -1, False)")
_body("embedding_renorm_", _X, _HUGE, "y = torch.embedding_renorm_(x, i, 1., 2.)")
_body("upsample_nearest2d_backward", _X, "y = torch.upsample_nearest2d_backward(x, [4, 4], [1, 1, 9, 9], None, None)")
_body("grid_sampler_2d", _X, "y = torch.grid_sampler_2d(x, x, 0, 0, False)")
_body("convolution_backward", _X, "y, a, b = torch.convolution_backward(x, x, x, None, [1, 1], [0, 0], [1, 1], False)")
_body("gather_backward", _X, _HUGE, "y = torch.gather_backward(x, x, 1, i, False)")
_body("value_selecting_reduction_backward", _V, _I, "y = torch.value_selecting_reduction_backward(v, 0, i, [4], True)")
# Sparse tensors, whose indices point where they like.
_body("sparse_coo_tensor", _V, _I, "y = torch.to_dense(torch.sparse_coo_tensor(torch.unsqueeze(i, 0), v, [4]))")
_body("_sparse_coo_tensor_unsafe", _V, _I, "y = torch._sparse_coo_tensor_unsafe(torch.unsqueeze(i, 0), v, [4])")
_body("_sparse_csr_tensor_unsafe", _V, _I, "y = torch._sparse_csr_tensor_unsafe(i, i, v, [4, 4])")
_body("to_sparse", _X, "y = torch.to_sparse(x)")
_body("_sparse_mm_reduce_impl", _X, 'y, i = torch._sparse_mm_reduce_impl(x, x, "sum")')
_body("segment_reduce", _V, _I, 'y = torch.segment_reduce(v, "sum", lengths=i, axis=0, unsafe=True)')
# Loss, embeddings in bags, what normalisation makes of batches.
_body("nll_loss", _X, _I, "y = torch.nll_loss(torch.ones([4, 4]), i)")
_body("nll_loss_backward", _V, _I, "y = torch.nll_loss_backward(v, v, i, None, 0, -100, v)")
_body("multi_margin_loss", _V, _I, "y = torch.multi_margin_loss(torch.ones([4, 4]), i)")
_body("ctc_loss", _X, "y = torch.ctc_loss(x, i, [9], [9], 0, 1, False)")
_body("_ctc_loss_backward", _X, "y = torch._ctc_loss_backward(x, x, i, [9], [9], x, x, 0, False)")
_body("embedding_bag", _V, _I, "y, a, b, c = torch.embedding_bag(v, i, i, False, 0, False, None)")
_body(
    "_embedding_bag_dense_backward", _V, _I, "y = torch._embedding_bag_dense_backward(v, i, i, i, i, 4, False, 0, None)"
)
_body("native_batch_norm", _X, _V, "y, a, b = torch.native_batch_norm(x, v, v, v, v, False, 0.1, 1e-05)")
_body("batch_norm_elemt", _X, _V, "y = torch.batch_norm_elemt(x, v, v, v, v, 1e-05)")
_body("native_layer_norm", _X, _V, "y, a, b = torch.native_layer_norm(x, [4], v, v, 1e-05)")
_body("native_group_norm", _X, _V, "y, a, b = torch.native_group_norm(x, v, v, 1, 9, 9, 1, 1e-05)")
_body("native_channel_shuffle", _X, "y = torch.native_channel_shuffle(x, 9)")
_body("_weight_norm", _X, _V, "y = torch._weight_norm(x, v, 1)")
# Pivots for LAPACK, which takes them as they are.
_body("lu_unpack", _X, _HUGE, "a, b, y = torch.lu_unpack(x, i)")
_body("linalg_lu_solve", _X, _HUGE, "y = torch.linalg_lu_solve(x, i, x)")
_body("linalg_ldl_solve", _X, _HUGE, "y = torch.linalg_ldl_solve(x, i, x)")
_body("ormqr", _X, "y = torch.ormqr(x, x, x)")
_body("linalg_householder_product", _X, "y = torch.linalg_householder_product(x, x)")
# Memory as it is, or of one's own choice.
_body("empty", "y = torch.empty([2, 3], dtype=6)")
_body("new_empty", _X, "y = torch.new_empty(x, [2, 3])")
_body("empty_strided", "y = torch.empty_strided([2, 3], [3, 1])")
_body("resize_", _X, "y = torch.resize_(x, [1000000])")
_body("set_", _X, "y = torch.set_(x, x, 1000000, [4], [1])")
_body("_reshape_alias", _X, "y = torch._reshape_alias(x, [1000000], [1])")
_body("_unsafe_index", _X, _HUGE, "y = torch._unsafe_index(x, annotate(List[Optional[Tensor]], [i]))")
_body("_index_put_impl_", _X, _HUGE, "y = torch._index_put_impl_(x, [i], x, False, True)")
_body("make_per_channel_quantized_tensor", _X, "y = torch._make_per_channel_quantized_tensor(x, x, x, 9)")
_body("nested_view", _X, _I, "y = torch._nested_view_from_buffer(x, i, i, i)")
# Files, and code.
_body("save", 'torch.save(input_ids, "/tmp/x")', "y = torch.zeros([2, 3], dtype=6)")
_body("from_file", 'y = torch.from_file("/etc/passwd", False, 6)')
# Written in another way.
_code("keyword_out", "an operator that writes to a given tensor", "x = torch.add(input_ids, input_ids, out=input_ids)")
_code("method", "an operator as a method of a tensor", "x = (input_ids).resize_([1000000])")
_code("method_of_a_name", "an operator as a method of a name", "x = input_ids.resize_([1000000])")
_code("ops", "an operator by its longer name", "x = ops.aten.resize_(input_ids, [1000000])")
_code("alias", "an operator by another name", "f = torch.resize_", "x = f(input_ids, [1000000])")
_code("namespace", "a whole namespace by another name", "f = ops.aten")
_code("shadow", "another meaning for a function", "int = torch.add")
_code("subscript_call", "a call of what stands in a list", "x = [torch.add][0](input_ids, input_ids)")
_code("while", "a loop without an end", "x = True", "while x:", "  x = True")
_code("lambda", "a function without a name", "f = lambda x: x")
_code("print", "a function of Python", "print(input_ids)")
_code("python", "Python's own code", 'x = ^os.system("true")')
_code("operator_sign", "arithmetic by signs", "x = input_ids + input_ids")
_code("two_lines", "two statements in one line", "x = input_ids; y = x")
_code("import", "an import", "import os")
_code("class", "a class of C++", 'x = __torch__.torch.classes.aoti.Model("/tmp/evil.so")')
_code("space", "an operator with space in its name", "x = torch . resize_(input_ids, [1000000])")
_code("deep", "brackets that are nested deep", "x = " + "(" * 2000 + "1" + ")" * 2000)
_code("long", "a chain without an end", "x = input_ids" + ".a" * 100_000)
_code("steps", "subscripts of subscripts without an end", "x = input_ids" + "[0]" * 100_000)
_code("minus", "signs of minus without an end", "x = " + "-" * 100_000 + "1")
_code("comment", "a comment", "x = 1  # type: int")
_code("unicode", "a letter beyond ASCII", "ｘ = 1")
