"""Networks that no package brings: a U-Net with attention, recurrent classifiers, graph attention, a two-stage detector head.

Plain torch, as a user would write them; nothing here knows about devices. RoIAlign and NMS are written with torch's
operators, because torchvision's have kernels for the CPU and CUDA only (test_models.py holds them against torchvision's).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions with group normalisation around a shortcut."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.body = nn.Sequential(nn.GroupNorm(4, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1),
                                  nn.GroupNorm(4, outside), nn.SiLU(), nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class SpatialAttention(nn.Module):
    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(n, c, h, w))


class UNet(nn.Module):
    """Down by strided convolutions, up by transposed convolutions, attention at the lowest resolution: labels per pixel."""

    def __init__(self, width: int, classes: int, depth: int = 3, heads: int = 4):
        super().__init__()
        widths = [width << i for i in range(depth + 1)]
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(nn.ModuleList([Block(a, a), nn.Conv2d(a, b, 3, stride=2, padding=1)]) for a, b in zip(widths, widths[1:]))
        self.middle = nn.Sequential(Block(widths[-1], widths[-1]), SpatialAttention(widths[-1], heads), Block(widths[-1], widths[-1]))
        self.up = nn.ModuleList(nn.ModuleList([nn.ConvTranspose2d(b, a, 2, stride=2), Block(2 * a, a)])
                                for a, b in reversed(list(zip(widths, widths[1:]))))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        x = self.first(x)
        skipped = []
        for block, shrink in self.down:
            x = block(x)
            skipped.append(x)
            x = shrink(x)
        x = self.middle(x)
        for grow, block in self.up:
            x = block(torch.cat([grow(x), skipped.pop()], 1))
        return self.last(x)


class RecurrentClassifier(nn.Module):
    def __init__(self, kind, words: int, width: int, layers: int, classes: int):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.recurrent = kind(width, width, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, tokens):
        return self.head(self.recurrent(self.embed(tokens))[0].mean(1))


class GraphAttention(nn.Module):
    """One layer of graph attention (GAT): a softmax over each node's incoming edges, by scatter."""

    def __init__(self, inside: int, outside: int, heads: int):
        super().__init__()
        self.heads, self.width = heads, outside
        self.project = nn.Linear(inside, heads * outside, bias=False)
        self.source = nn.Parameter(torch.randn(heads, outside) / outside**0.5)
        self.target = nn.Parameter(torch.randn(heads, outside) / outside**0.5)

    def forward(self, x, edges):
        nodes = x.shape[0]
        source, target = edges
        h = self.project(x).view(nodes, self.heads, self.width)
        logits = F.leaky_relu((h * self.source).sum(-1)[source] + (h * self.target).sum(-1)[target], 0.2)
        index = target[:, None].expand_as(logits)
        highest = torch.full((nodes, self.heads), float("-inf"), dtype=logits.dtype, device=x.device)
        highest = highest.scatter_reduce(0, index, logits.detach(), "amax")
        weight = (logits - highest[target]).exp()
        total = torch.zeros_like(highest).scatter_add(0, index, weight)
        weight = weight / total[target]
        out = torch.zeros_like(h).index_add(0, target, h[source] * weight[:, :, None])
        return out.flatten(1)


class GraphNetwork(nn.Module):
    def __init__(self, inside: int, width: int, heads: int, classes: int):
        super().__init__()
        self.layers = nn.ModuleList([GraphAttention(inside, width, heads), GraphAttention(heads * width, width, heads)])
        self.head = nn.Linear(2 * heads * width, classes)

    def forward(self, x, edges):
        for layer in self.layers:
            x = F.elu(layer(x, edges))
        nodes = x.shape[0]
        # Neighbours' mean beside the node's own features.
        index = edges[1][:, None].expand(-1, x.shape[1])
        mean = torch.zeros_like(x).scatter_reduce(0, index, x[edges[0]], "mean", include_self=False)
        return self.head(torch.cat([x, mean], 1)).reshape(nodes, -1)


def box_iou(a, b):
    """Intersection over union of boxes [n,4] and [m,4] given by corners: [n,m]."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return inter / (area_a[:, None] + area_b[None] - inter)


def nms(boxes, scores, threshold: float):
    """Indices of the boxes that stay, by falling score. No element is read back: masks only."""
    order = scores.argsort(descending=True)
    overlaps = box_iou(boxes[order], boxes[order]) > threshold
    ranks = torch.arange(order.shape[0], device=boxes.device)
    keep = torch.ones_like(order, dtype=torch.bool)
    for i in range(order.shape[0]):
        keep = keep & ~(overlaps[i] & keep[i] & (ranks > i))
    return order[keep]


def _weights(at, size: int):
    """Of sampling points [k,p] along an axis: the cells on both sides and the share of each; outside of [-1,size] none."""
    inside = ((at >= -1) & (at <= size)).to(at.dtype)
    at = at.clamp(0, size - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=size - 1)
    share = at - low.to(at.dtype)
    return low, high, (1 - share) * inside, share * inside


def roi_align(features, boxes, batch, size: int, scale: float, samples: int = 2):
    """Bilinear samples of features [n,c,h,w] in boxes [k,4] of images batch [k]: [k,c,size,size], as torchvision aligned=True."""
    k, (_, c, h, w) = boxes.shape[0], features.shape
    corner, extent = boxes[:, :2] * scale - 0.5, (boxes[:, 2:] - boxes[:, :2]) * scale
    step = (torch.arange(size * samples, device=boxes.device, dtype=boxes.dtype) + 0.5) / (size * samples)
    xs, ys = (corner[:, axis, None] + extent[:, axis, None] * step for axis in (0, 1))
    rows, columns = _weights(ys, h), _weights(xs, w)
    flat = features.permute(0, 2, 3, 1).reshape(-1, c)
    total = 0
    for row, row_share in ((rows[0], rows[2]), (rows[1], rows[3])):
        for column, column_share in ((columns[0], columns[2]), (columns[1], columns[3])):
            cell = (batch[:, None, None] * h + row[:, :, None]) * w + column[:, None, :]
            share = row_share[:, :, None] * column_share[:, None, :]
            total = total + flat[cell.reshape(-1)].view(*cell.shape, c) * share[..., None]
    return F.avg_pool2d(total.permute(0, 3, 1, 2), samples)


class Detector(nn.Module):
    """Proposals of a small backbone, NMS, RoIAlign, and a head that classifies and refines each proposal."""

    STRIDE, SIZES = 8, (16.0, 32.0, 64.0)

    def __init__(self, width: int, classes: int, proposals: int = 48):
        super().__init__()
        self.proposals = proposals
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1),
                                      nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.objectness = nn.Conv2d(2 * width, len(self.SIZES), 1)
        self.shift = nn.Conv2d(2 * width, 4 * len(self.SIZES), 1)
        self.hidden = nn.Linear(2 * width * 49, 8 * width)
        self.classes = nn.Linear(8 * width, classes)
        self.refine = nn.Linear(8 * width, 4)

    def anchors(self, h: int, w: int, like):
        options = {"device": like.device, "dtype": like.dtype}
        y, x = ((torch.arange(n, **options) + 0.5) * self.STRIDE for n in (h, w))
        sizes = torch.tensor(self.SIZES, **options)
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[:, :, None].expand(h, w, len(self.SIZES), 2)
        return torch.cat([centre, sizes[:, None].expand(h, w, -1, 2)], -1).reshape(-1, 4)

    @staticmethod
    def moved(anchors, shift, limit):
        """Anchors (centre, size), moved and scaled by a shift, as corners inside the image."""
        centre = anchors[:, :2] + shift[:, :2] * anchors[:, 2:]
        half = anchors[:, 2:] * shift[:, 2:].clamp(max=2).exp() / 2
        return torch.cat([centre - half, centre + half], 1).clamp(0, limit)

    def forward(self, images):
        features = self.backbone(images)
        n, _, h, w = features.shape
        scores = self.objectness(features).permute(0, 2, 3, 1).reshape(n, -1)
        shifts = self.shift(features).permute(0, 2, 3, 1).reshape(n, -1, 4)
        anchors = self.anchors(h, w, features)
        boxes, batch = [], []
        for i in range(n):
            best = scores[i].detach().topk(self.proposals).indices
            candidates = self.moved(anchors[best], shifts[i, best], float(images.shape[-1]))
            kept = nms(candidates.detach(), scores[i, best].detach(), 0.7)
            boxes.append(candidates[kept])
            batch.append(torch.full_like(kept, i))
        boxes, batch = torch.cat(boxes), torch.cat(batch)
        pooled = roi_align(features, boxes.detach(), batch, 7, 1 / self.STRIDE)
        hidden = F.relu(self.hidden(pooled.flatten(1)))
        return {"scores": scores, "boxes": boxes, "batch": batch, "classes": self.classes(hidden), "refined": self.refine(hidden)}


def detector_loss(out, truth, labels, anchor_labels):
    """Objectness of anchors, classes and corners of proposals against the image's box that overlaps most."""
    best, which = [], []
    for i in range(truth.shape[0]):
        overlap, index = box_iou(out["boxes"].detach(), truth[i]).max(1)
        best.append(overlap)
        which.append(index)
    best, which = torch.stack(best, 1), torch.stack(which, 1)
    mine = out["batch"][:, None]
    overlap, index = best.gather(1, mine)[:, 0], which.gather(1, mine)[:, 0]
    target = torch.where(overlap > 0.2, labels[out["batch"], index], torch.zeros_like(index))
    goal = truth[out["batch"], index] / 32
    return (F.binary_cross_entropy_with_logits(out["scores"], anchor_labels.to(out["scores"].dtype))
            + F.cross_entropy(out["classes"], target)
            + F.smooth_l1_loss(out["boxes"] / 32, goal) + F.smooth_l1_loss(out["refined"], goal - out["boxes"].detach() / 32))
