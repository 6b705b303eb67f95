"""Kernels in several forms: what each form is, what survives which change of the input."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import (
    GroupPool,
    KernelTransform,
    ReflectConv2d,
    ResidualBlock2d,
    RotateConv2d,
    ScaleConv2d,
    TransformedKernelConv2d,
    replace_convs,
)
from gaitzoo.testing.trial import reset_statistics

QUARTERS = (0, 90, 180, 270)
KINDS = {
    "reflect": ReflectConv2d,
    "rotate": RotateConv2d,
    "scale": ScaleConv2d,
    "resize": lambda *sizes, **options: ScaleConv2d(*sizes, mode="resize", **options),
}


def mirrored(x):
    return x.flip(-1)


def turned(x):
    return x.rot90(1, (-2, -1))


# ---------------------------------------------------------------------- forms of a kernel


@pytest.mark.parametrize("angle", [-15.0, 7.5, 30.0, 45.0, 60.0, 135.0, 301.0])
@pytest.mark.parametrize("size", [3, 5])
def test_turned_kernels_are_sampled_on_a_turned_grid(angle, size):
    kernel = torch.rand(4, 2, size, size, dtype=torch.float64)
    radians = torch.deg2rad(torch.tensor(angle, dtype=torch.float64))
    cosine, sine = radians.cos(), radians.sin()
    # Columns first. The grid turns the other way as the kernel on it.
    matrix = torch.stack([cosine, -sine, cosine * 0, sine, cosine, sine * 0]).view(1, 2, 3)
    grid = F.affine_grid(matrix, [1, 1, size, size], align_corners=True)
    wanted = F.grid_sample(kernel.flatten(0, 1)[None], grid, align_corners=True)
    found = KernelTransform(angle=angle)(kernel)
    assert relative_error(found, wanted.view(found.shape)) < 1e-10
    # Nearly a quarter: the same direction as the exact one.
    assert relative_error(KernelTransform(angle=90 + 1e-9)(kernel), turned(kernel)) < 1e-8


@pytest.mark.parametrize("quarters", range(-4, 6))
def test_quarter_turns_and_mirrors_are_exact(quarters):
    kernel = torch.rand(4, 2, 3, 3)
    assert torch.equal(KernelTransform(angle=90 * quarters)(kernel), kernel.rot90(quarters, (2, 3)))
    assert torch.equal(KernelTransform(flipped=True)(kernel), kernel.flip(3))
    assert KernelTransform()(kernel) is kernel
    both = KernelTransform(flipped=True, angle=90 * quarters)(kernel)
    assert torch.equal(both, kernel.flip(3).rot90(quarters, (2, 3)))


@pytest.mark.parametrize("growth", [2, 3])
def test_grown_kernels_keep_their_sum_and_are_interpolated(growth):
    kernel = torch.rand(4, 2, 3, 3, dtype=torch.float64)
    found = KernelTransform(growth=growth)(kernel)
    size = 2 * growth + 1
    assert found.shape == (4, 2, size, size)
    assert relative_error(found.sum((2, 3)), kernel.sum((2, 3))) < 1e-10
    naive = torch.zeros_like(found)
    weights = torch.zeros(size, 3, dtype=torch.float64)
    for i in range(size):
        for j in range(3):
            weights[i, j] = max(0.0, 1 - abs(i / growth - j))
    weights /= weights.sum(0)
    for i in range(size):
        for j in range(size):
            for a in range(3):
                for b in range(3):
                    naive[..., i, j] += weights[i, a] * weights[j, b] * kernel[..., a, b]
    assert relative_error(found, naive) < 1e-10
    assert torch.equal(KernelTransform(growth=growth)(kernel[..., :1, :1]), kernel[..., :1, :1])


# ---------------------------------------------------------------------- layers


@pytest.mark.parametrize("reduce", ["max", "mean", None])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stride", "groups", "bias"), [(1, 1, True), (2, 2, False), (2, 2, True)])
def test_every_layer_is_a_convolution_per_form_and_their_maximum_or_mean(
    kind, reduce, stride, groups, bias
):
    conv = KINDS[kind](4, 6, 3, stride, groups, bias, reduce=reduce).double()
    x = torch.rand(2, 4, 9, 8, dtype=torch.float64)
    maps = []
    for transform in conv.transforms:
        kernel = transform(conv.weight)
        border = transform.dilation * (kernel.shape[-1] // 2)
        maps.append(F.conv2d(x, kernel, conv.bias, stride, border, transform.dilation, groups))
    lifted = torch.stack(maps, dim=2)
    wanted = lifted if reduce is None else GroupPool(2, reduce)(lifted)
    for layer in (conv, conv.fused(torch.float64)):
        assert relative_error(layer(x), wanted) < 1e-10
        if reduce is not None:
            lasting = x.contiguous(memory_format=torch.channels_last)
            found = layer.to(memory_format=torch.channels_last)(lasting)
            assert relative_error(found, wanted) < 1e-10
            assert found.stride(1) == 1


def test_lifted_reflection_mirrors_the_map_and_swaps_the_forms():
    conv = ReflectConv2d(3, 4, 5, reduce=None).double()
    for width in (7, 8):
        x = torch.rand(2, 3, 6, width, dtype=torch.float64)
        assert relative_error(conv(mirrored(x)), mirrored(conv(x)).flip(2)) < 1e-10


def test_the_maximum_over_quarter_turns_turns_with_the_input():
    conv = RotateConv2d(3, 4, angles=QUARTERS).double()
    x = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    assert relative_error(conv(turned(x)), turned(conv(x))) < 1e-10
    plain = RotateConv2d(3, 4, angles=(0,)).double()
    assert relative_error(plain(turned(x)), turned(plain(x))) > 0.01


def test_twice_the_gaps_on_twice_the_pixels_give_the_same():
    conv = ScaleConv2d(2, 4, reduce=None).double()
    x = torch.rand(1, 2, 6, 5, dtype=torch.float64)
    larger = torch.rand(1, 2, 12, 10, dtype=torch.float64)
    larger[..., ::2, ::2] = x
    assert relative_error(conv(larger)[:, :, 1, ::2, ::2], conv(x)[:, :, 0]) < 1e-10


def test_resized_kernels_answer_alike_to_a_constant_map():
    conv = ScaleConv2d(2, 4, scales=(1, 2, 3), mode="resize", reduce=None).double()
    inside = conv(torch.full((1, 2, 11, 11), 0.7, dtype=torch.float64))[..., 3:-3, 3:-3]
    assert relative_error(inside, inside[:, :, :1].expand_as(inside)) < 1e-10


def test_with_a_step_of_2_odd_widths_are_mirrored_exactly_and_even_ones_not():
    conv = ReflectConv2d(2, 4, stride=2).double()
    odd, even = (torch.rand(1, 2, 8, width, dtype=torch.float64) for width in (11, 12))
    assert relative_error(conv(mirrored(odd)), mirrored(conv(odd))) < 1e-10
    assert relative_error(conv(mirrored(even)), mirrored(conv(even))) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_one_convolution_and_every_form_trains_them(kind):
    conv = KINDS[kind](4, 6, reduce=None)
    plain = nn.Conv2d(4, 6, 3, bias=False)
    assert conv.state_dict().keys() == plain.state_dict().keys()
    assert conv.weight.shape == plain.weight.shape
    lifted = conv(torch.rand(1, 4, 9, 9))
    for form in range(lifted.shape[2]):
        (gradient,) = torch.autograd.grad(lifted[:, :, form].sum(), conv.weight, retain_graph=True)
        assert bool((gradient != 0).all())


def test_three_reflected_residual_blocks_survive_a_mirror():
    blocks = nn.Sequential(*(ResidualBlock2d(c, 4) for c in (2, 4, 4)))
    reset_statistics(blocks)
    x = torch.rand(2, 2, 6, 8, dtype=torch.float64)
    plain = blocks.double().eval()(x), blocks(mirrored(x))
    assert relative_error(plain[1], mirrored(plain[0])) > 0.01
    replace_convs(blocks, "reflect")
    found = blocks(x), blocks(mirrored(x))
    assert relative_error(found[1], mirrored(found[0])) < 1e-10
    pooled = [y.amax((2, 3)) + y.mean((2, 3)) for y in found]
    assert relative_error(pooled[1], pooled[0]) < 1e-10


def test_half_precision_with_one_column_left_reads_nothing_unwritten():
    conv = ReflectConv2d(3, 4, stride=2, bias=True)
    x = torch.rand(1, 3, 4, 2)
    wanted = conv(x)
    found = conv.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert relative_error(found.float(), wanted) < 0.05


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RotateConv2d(1, 2, angles=()), "at least one transform"),
        (lambda: RotateConv2d(1, 2, angles=("15",)), "angle in degrees"),
        (lambda: RotateConv2d(1, 2, angles=15), "angles as a tuple of degrees, got 15"),
        (lambda: RotateConv2d(1, 2, angles=(float("nan"),)), "finite angle"),
        (lambda: ScaleConv2d(1, 2, scales=(1.5,)), "scales as a tuple of positive whole"),
        (lambda: ScaleConv2d(1, 2, mode="zoom"), 'mode "dilate" or "resize"'),
        (lambda: ReflectConv2d(1, 2, 4), "odd kernel_size, got 4"),
        (lambda: ReflectConv2d(1, 2, reduce="min"), 'reduce "max" or "mean"'),
        (lambda: GroupPool(mode="sum"), 'mode "max" or "mean"'),
        (lambda: ReflectConv2d(3, 2)(torch.rand(1, 4, 5, 5)), r"images \[N, 3, H, W\], got \[1, 4"),
        (lambda: ReflectConv2d(3, 2)(torch.rand(2, 3, 4, 5, 5)), "FrameWise"),
        (
            lambda: TransformedKernelConv2d(1, 2, transforms=[KernelTransform()], stride=0),
            "stride as a positive",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(build, message):
    with pytest.raises(ValueError, match=message):
        build()
    with pytest.raises(TypeError, match=r"of floats, got torch\.int64"):
        ReflectConv2d(3, 2)(torch.ones(1, 3, 4, 4, dtype=torch.int64))


# ---------------------------------------------------------------------- in any network


@pytest.mark.parametrize("name", ["gaitbase_tiny", "deepgaitv2_p3d_tiny", "trackletgait_tiny"])
@torch.no_grad()
def test_replaced_by_the_unchanged_kernel_alone_a_model_is_the_same(name):
    model = gaitzoo.create_model(name).eval()
    clips = torch.rand(2, 4, 16, 12)
    wanted, parameters = model(clips), dict(model.named_parameters())
    assert replace_convs(model, "rotate", angles=(0,)) is model
    assert all(p is parameters[key] for key, p in model.named_parameters())
    found = model(clips)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert torch.equal(found.logits, wanted.logits)


@pytest.mark.parametrize("kind", ["reflect", "rotate", "scale"])
@pytest.mark.parametrize("name", ["gaitbase_tiny", "deepgaitv2_3d_tiny", "trackletgait_tiny"])
@torch.no_grad()
def test_replaced_models_are_fused_with_the_same_numbers(name, kind):
    model = replace_convs(gaitzoo.create_model(name).eval(), kind)
    reset_statistics(model)
    for module in model.modules():
        # A batch norm with negative weights must not be taken before the maximum.
        if isinstance(module, nn.BatchNorm2d):
            module.weight[::2] *= -1
    clips, lengths = torch.rand(2, 4, 16, 12), torch.tensor([4, 2])
    fused = gaitzoo.fuse_for_inference(model)
    assert not [key for key in fused.unfused_norms if "neck" not in key]
    found, wanted = (m(clips, lengths).embeddings for m in (fused, model))
    assert relative_error(found, wanted) < 1e-5
    narrow = gaitzoo.fuse_for_inference(model, torch.bfloat16)(clips, lengths).embeddings
    assert F.cosine_similarity(narrow.flatten(1), wanted.flatten(1)).min() > 0.99


def test_modules_with_two_names_are_replaced_under_both():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), nn.Sequential(conv))
    replace_convs(network, "reflect")
    assert type(network[0]) is ReflectConv2d
    assert network[2][0] is network[0]
    assert network[0].bias is conv.bias


def test_what_is_replaced_can_be_chosen():
    network = nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(2, 2, 3, padding=1).eval())
    replace_convs(network, "scale", lambda name, conv: name == "0", scales=(1, 3))
    assert [type(m) for m in network] == [ScaleConv2d, nn.Conv2d]
    replace_convs(network, "reflect", lambda name, conv: type(conv) is nn.Conv2d, reduce="mean")
    assert network[1].reduce == "mean"
    assert not network[1].training


@pytest.mark.parametrize(
    ("network", "kind", "options", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1)), "reflect", {}, "got none; see predicate"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), "reflect", {}, "got none; see predicate"),
        (nn.Conv2d(1, 2, 3, padding=1), "reflect", {}, "got none; see predicate"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)), "mirror", {}, "a kind among reflect"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)), "scale", {"reduce": None}, "got None"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 4)),
            "reflect",
            {"predicate": lambda name, conv: True},
            r"border of half a kernel of zeros, got 0: Conv2d\(1, 2",
        ),
    ],
)
def test_what_cannot_be_replaced_is_named(network, kind, options, message):
    before = list(network.modules())
    with pytest.raises(ValueError, match=message):
        replace_convs(network, kind, **options)
    assert list(network.modules()) == before


def test_a_model_with_replaced_convolutions_is_not_saved_as_if_it_had_none(tmp_path):
    model = replace_convs(gaitzoo.create_model("gaitbase_tiny"), "reflect")
    with pytest.raises(ValueError, match=r"replace_convs \(backbone\.stem\.0\), which a folder"):
        model.save_pretrained(tmp_path / "out")
    other = replace_convs(gaitzoo.create_model("gaitbase_tiny"), "reflect")
    other.load_state_dict(model.state_dict())
