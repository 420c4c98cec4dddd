"""Small networks on images: encoders and decoders, detectors, diffusion, super-resolution, generators."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv(into: int, out: int, *, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


class UNet(nn.Module):
    """Two steps down, two up, joined by concatenation; up by transposed convolution or by interpolation."""

    def __init__(self, *, transposed: bool, dims: int = 2) -> None:
        super().__init__()
        conv, up = getattr(nn, f"Conv{dims}d"), getattr(nn, f"ConvTranspose{dims}d")
        self.one, self.two, self.low = (
            conv(1, 4, 3, padding=1),
            conv(4, 6, 3, padding=1),
            conv(6, 8, 3, padding=1),
        )
        self.up2 = up(8, 6, 2, 2) if transposed else nn.Sequential(nn.Upsample(scale_factor=2), conv(8, 6, 1))
        self.up1 = up(6, 4, 2, 2) if transposed else nn.Sequential(nn.Upsample(scale_factor=2), conv(6, 4, 1))
        self.three, self.four, self.head = conv(12, 6, 3, padding=1), conv(8, 4, 3, padding=1), conv(4, 2, 1)
        self.pool = getattr(nn, f"MaxPool{dims}d")(2)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.relu(self.one(x))
        two = torch.relu(self.two(self.pool(one)))
        low = torch.relu(self.low(self.pool(two)))
        up = torch.relu(self.three(torch.cat([self.up2(low), two], 1)))
        return self.head(torch.relu(self.four(torch.cat([self.up1(up), one], 1))))


class NestedUNet(nn.Module):
    """UNet++ of depth two."""

    def __init__(self) -> None:
        super().__init__()
        self.x00, self.x10, self.x20 = _conv(1, 4), _conv(4, 6), _conv(6, 8)
        self.x01, self.x11, self.x02 = _conv(10, 4), _conv(14, 6), _conv(14, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        def up(h: Tensor) -> Tensor:
            return functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)

        a = self.x00(x)
        b = self.x10(functional.max_pool2d(a, 2))
        c = self.x20(functional.max_pool2d(b, 2))
        ab, bc = self.x01(torch.cat([a, up(b)], 1)), self.x11(torch.cat([b, up(c)], 1))
        return self.head(self.x02(torch.cat([a, ab, up(bc)], 1)))


class AttentionUNet(nn.Module):
    """Skips gated by what is below."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low, self.up = _conv(1, 4), _conv(4, 6), nn.ConvTranspose2d(6, 4, 2, 2)
        self.theirs, self.ours, self.score = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 1, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        up = self.up(self.low(functional.max_pool2d(skip, 2)))
        gate = torch.sigmoid(self.score(torch.relu(self.theirs(up) + self.ours(skip))))
        return self.head(torch.cat([up, skip * gate], 1))


class PyramidPooling(nn.Module):
    """PSPNet: means over several grids beside the features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 6, stride=2), _conv(6, 8))
        self.parts = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(8, 3, 1)) for n in (1, 2, 4)
        )
        self.head = nn.Conv2d(17, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        seen = [
            functional.interpolate(p(h), size=h.shape[-2:], mode="bilinear", align_corners=False)
            for p in self.parts
        ]
        return functional.interpolate(self.head(torch.cat([h, *seen], 1)), scale_factor=2, mode="nearest")


class AtrousPyramid(nn.Module):
    """DeepLab's: dilated kernels side by side, and the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _conv(3, 6)
        self.branches = nn.ModuleList(nn.Conv2d(6, 4, 3, padding=d, dilation=d) for d in (1, 2, 3))
        self.image, self.head = nn.Conv2d(6, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        mean = self.image(h.mean((2, 3), keepdim=True)).expand(-1, -1, *h.shape[-2:])
        return self.head(torch.relu(torch.cat([*(branch(h) for branch in self.branches), mean], 1)))


class SegNet(nn.Module):
    """An encoder and a decoder without skips."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(3, 6), nn.MaxPool2d(2), _conv(6, 8), nn.MaxPool2d(2), _conv(8, 8),
            nn.Upsample(scale_factor=2), _conv(8, 6), nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class FeaturePyramidDetector(nn.Module):
    """RetinaNet: a pyramid, and one head for classes and boxes at all of its levels."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = _conv(3, 6, stride=2), _conv(6, 8, stride=2)
        self.side1, self.side2 = nn.Conv2d(6, 6, 1), nn.Conv2d(8, 6, 1)
        self.classes, self.boxes = nn.Conv2d(6, 3 * 2, 3, padding=1), nn.Conv2d(6, 4 * 2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c1 = self.c1(x)
        p2 = self.side2(self.c2(c1))
        p1 = self.side1(c1) + functional.interpolate(p2, scale_factor=2, mode="nearest")
        levels = (p1, p2)
        classes = [self.classes(p).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for p in levels]
        boxes = [self.boxes(p).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for p in levels]
        return torch.cat(classes, 1).sigmoid(), torch.cat(boxes, 1)


class AnchorFreeDetector(nn.Module):
    """YOLOv8's head: boxes as distributions over bins, read out by a fixed kernel."""

    def __init__(self, bins: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 6, stride=2), _conv(6, 8, stride=2))
        self.boxes, self.classes = nn.Conv2d(8, 4 * bins, 1), nn.Conv2d(8, 3, 1)
        self.register_buffer("steps", torch.arange(bins).float().view(1, bins, 1, 1))
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        n = h.shape[0]
        boxes = self.boxes(h).view(n, 4, self.bins, -1).transpose(1, 2).softmax(1)
        ends = functional.conv2d(boxes, self.steps).view(n, 4, -1)
        near, far = ends.chunk(2, 1)
        return torch.cat([(near + far) / 2, far - near, self.classes(h).flatten(2).sigmoid()], 1)


class AnchorDetector(nn.Module):
    """YOLOv3's head: offsets that are squashed and added to a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 6, stride=2), _conv(6, 8, stride=2))
        self.head = nn.Conv2d(8, 2 * 8, 1)
        self.register_buffer("anchors", torch.tensor([[1.0, 2.0], [3.0, 1.5]]).view(1, 2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(self.body(x))
        n, _, rows, columns = h.shape
        h = h.view(n, 2, 8, rows, columns)
        grid = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")).float()
        parts = [h[:, :, :2].sigmoid() + grid, h[:, :, 2:4].exp() * self.anchors, h[:, :, 4:].sigmoid()]
        return torch.cat(parts, 2).permute(0, 1, 3, 4, 2).reshape(n, -1, 8)


class CentreDetector(nn.Module):
    """CenterNet: a heat map whose local peaks stay, sizes and offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 6, stride=2), _conv(6, 8))
        self.heat, self.sizes = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        heat = self.heat(h).sigmoid()
        return heat * (functional.max_pool2d(heat, 3, 1, 1) == heat), self.sizes(h)


class SubPixel(nn.Module):
    """ESPCN, or EDSR with residual blocks: more pixels by `pixel_shuffle`."""

    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(2 if residual else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.into(x))
        for block in self.blocks:
            h = h + 0.3 * block(h)
        return functional.pixel_shuffle(self.out(h), 2)


class ChannelAttention(nn.Module):
    """RCAN's block: channels weighed by their means."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)
        self.out = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        b = torch.relu(self.body(h))
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(b.mean((2, 3), keepdim=True)))))
        return functional.pixel_shuffle(self.out(h + b * weights), 2)


class Denoiser(nn.Module):
    """A diffusion U-Net: sinusoidal time, group norms, attention at the bottom."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, 12), nn.SiLU(), nn.Linear(12, 12))
        self.into, self.down = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, 2, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(2, width) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.shifts = nn.ModuleList(nn.Linear(12, width) for _ in range(2))
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.out = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        angles = step[:, None] * torch.exp(-math.log(100.0) * torch.arange(4) / 4)
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        skip = h = self.into(x)
        h = self.down(h)
        for norm, conv, shift in zip(self.norms, self.convs, self.shifts, strict=False):
            h = h + conv(functional.silu(norm(h)) + shift(functional.silu(time))[:, :, None, None])
        tokens = self.norms[2](h).flatten(2).transpose(1, 2)
        h = h + self.attend(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).view_as(h)
        up = functional.interpolate(h, scale_factor=2, mode="nearest")
        return self.out(torch.cat([up, skip], 1))


class DiffusionTransformer(nn.Module):
    """DiT's block: scales, shifts and gates from the condition."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.patch, self.condition = nn.Conv2d(1, width, 2, 2), nn.Linear(4, width)
        self.make = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attend = nn.MultiheadAttention(width, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.patch(x)
        rows = h.shape[-1]
        h = h.flatten(2).transpose(1, 2)
        a, b, c, d, e, f = self.make(functional.silu(self.condition(condition)))[:, None].chunk(6, -1)
        n = self.norm(h) * (1 + a) + b
        h = h + c * self.attend(n, n, n, need_weights=False)[0]
        h = h + f * self.mlp(self.norm(h) * (1 + d) + e)
        made = self.out(h).view(x.shape[0], rows, rows, 2, 2)
        return made.permute(0, 1, 3, 2, 4).reshape(x.shape[0], 1, 2 * rows, 2 * rows)


class Generator(nn.Module):
    """DCGAN's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(5, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.ConvTranspose2d(6, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class StyleGenerator(nn.Module):
    """StyleGAN2: a mapping, and kernels that the style scales and normalises anew."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, 6, 4, 4))
        self.style = nn.Linear(8, 6)
        self.kernel = nn.Parameter(torch.randn(5, 6, 3, 3) / 7)
        self.picture = nn.Conv2d(5, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        style = self.style(self.mapping(z))
        kernel = self.kernel * style[0][None, :, None, None]
        kernel = kernel * torch.rsqrt((kernel**2).sum((1, 2, 3), keepdim=True) + 1e-6)
        return self.picture(functional.leaky_relu(functional.conv2d(self.start, kernel, padding=1), 0.2))


class StyleTransfer(nn.Module):
    """AdaIN: the content's features with the mean and spread of the style's."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        c, s = torch.relu(self.encode(content)), torch.relu(self.encode(style))
        normal = functional.instance_norm(c)
        spread = s.var((2, 3), keepdim=True).add(1e-5).sqrt()
        return self.decode(normal * spread + s.mean((2, 3), keepdim=True))


class ImageAutoencoder(nn.Module):
    """Strided down, transposed up."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.Flatten()
        )
        self.low, self.back = nn.Linear(96, 5), nn.Linear(5, 96)
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.relu(self.back(self.low(self.encode(x)))).view(-1, 6, 4, 4))


class PolicyAndValue(nn.Module):
    """AlphaZero: a residual tower with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.one, self.two = _conv(3, 6), _conv(6, 6), nn.Conv2d(6, 6, 3, padding=1)
        self.policy, self.moves = nn.Conv2d(6, 2, 1), nn.Linear(2 * 16, 17)
        self.value, self.worth = nn.Conv2d(6, 1, 1), nn.Linear(16, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        h = self.into(board)
        h = torch.relu(h + self.two(self.one(h)))
        return self.moves(self.policy(h).flatten(1)), torch.tanh(
            self.worth(torch.relu(self.value(h)).flatten(1))
        )


class SpatialTransformer(nn.Module):
    """A network that says how to turn its input, and a classifier of what `grid_sample` gives."""

    def __init__(self) -> None:
        super().__init__()
        self.find, self.turn = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 6)
        self.see, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.turn(torch.relu(self.find(x)).mean((2, 3))).view(-1, 2, 3)
        turned = functional.grid_sample(
            x, functional.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False
        )
        return self.head(torch.relu(self.see(turned)).mean((2, 3)))


class LeNet(nn.Module):
    """LeCun's: convolutions, pooling, a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 5), nn.Tanh(), nn.Flatten(),
            nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Capsules(nn.Module):
    """Two rounds of routing between capsules."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Conv2d(1, 8, 3, 2)
        self.votes = nn.Parameter(torch.randn(18, 3, 5, 4) / 2)

    def forward(self, x: Tensor) -> Tensor:
        def squash(s: Tensor) -> Tensor:
            square = (s**2).sum(-1, keepdim=True)
            return square / (1 + square) * s / (square + 1e-6).sqrt()

        u = squash(self.primary(x).view(-1, 2, 4, 9).transpose(2, 3).reshape(-1, 18, 4))
        votes = torch.einsum("icdk,bik->bicd", self.votes, u)
        routes = votes.new_zeros(votes.shape[:3])
        for _ in range(2):
            v = squash((routes.softmax(2)[..., None] * votes).sum(1))
            routes = routes + (votes * v[:, None]).sum(-1)
        return v.norm(dim=-1)
