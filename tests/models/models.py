"""The models that `make models` trains on both devices: seeded weights and inputs, nothing downloaded, no dropout.

MODELS: name -> function(tiny) -> Case. The tiny ones have the same parts, fewer and smaller, for `make test`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # configurations only: nothing is looked up

import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional as F

import networks


@dataclasses.dataclass
class Case:
    network: nn.Module
    inputs: tuple[torch.Tensor, ...]
    targets: tuple[torch.Tensor, ...]
    output: Callable  # what forward() returned -> the tensor that is compared
    loss: Callable  # (what forward() returned, *targets) -> scalar
    optimizer: Callable  # parameters -> optimizer
    size: str  # for the table
    fallbacks: tuple[str, ...] = ()  # operators that torch_npu itself has only on the CPU

    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-4)


def same(x):
    return x


def classifier(network, images: int, side: int, optimizer, classes: int = 10) -> Case:
    return Case(network, (torch.randn(images, 3, side, side),), (torch.randint(classes, (images,)),), same, F.cross_entropy, optimizer,
                f"{images} x 3 x {side} x {side}")


def resnet50(tiny: bool) -> Case:
    if tiny:
        network, side = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, width_per_group=16), 32
    else:
        network, side = torchvision.models.resnet50(num_classes=10), 224
    for block in network.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            nn.init.constant_(block.bn3.weight, 0.2)  # small, as recipes have it: otherwise 50 layers amplify every rounding
    return classifier(network, 4, side, sgd)


def mobilenet_v3(tiny: bool) -> Case:
    if tiny:
        row = torchvision.models.mobilenetv3.InvertedResidualConfig
        rows = [row(16, 3, 16, 16, True, "RE", 2, 1, 1), row(16, 5, 32, 24, True, "HS", 2, 1, 1), row(24, 5, 48, 24, False, "HS", 1, 1, 1)]
        return classifier(torchvision.models.MobileNetV3(rows, 64, num_classes=10, dropout=0.0), 4, 32, sgd)
    return classifier(torchvision.models.mobilenet_v3_large(num_classes=10, dropout=0.0), 4, 224, sgd)


def vit_b_16(tiny: bool) -> Case:
    if tiny:
        network = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
        side, images = 32, 2
    else:
        network = torchvision.models.vit_b_16(num_classes=10)
        side, images = 224, 1
    nn.init.normal_(network.heads.head.weight, std=0.02)  # torchvision's zeros would make every logit 0
    return classifier(network, images, side, adamw)


def unet(tiny: bool) -> Case:
    side, images = (32, 2) if tiny else (128, 2)
    network = networks.UNet(8, 5, 2, 2) if tiny else networks.UNet(32, 12)
    classes = network.last.out_channels
    return Case(network, (torch.randn(images, 3, side, side),), (torch.randint(classes, (images, side, side)),), same, F.cross_entropy,
                adamw, f"{images} x 3 x {side} x {side}")


def recurrent(kind, tiny: bool) -> Case:
    batch, length, width = (2, 7, 12) if tiny else (4, 64, 256)
    network = networks.RecurrentClassifier(kind, 500, width, 2, 5)
    return Case(network, (torch.randint(500, (batch, length)),), (torch.randint(5, (batch,)),), same, F.cross_entropy, adamw,
                f"{batch} x {length} tokens")


def bert(tiny: bool) -> Case:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0, "num_labels": 5}
    small = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    network = transformers.BertForSequenceClassification(transformers.BertConfig(**off, **(small if tiny else {})))
    batch, length = (2, 12) if tiny else (2, 128)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length * 3 // 4:] = 0  # one shorter sentence, so that padding is masked
    return Case(network, (torch.randint(network.config.vocab_size, (batch, length)), mask), (torch.randint(5, (batch,)),),
                lambda out: out.logits, lambda out, y: F.cross_entropy(out.logits, y), adamw, f"{batch} x {length} tokens")


def gpt2(tiny: bool) -> Case:
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    small = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**off, **(small if tiny else {})))
    batch, length = (2, 12) if tiny else (1, 128)
    tokens = torch.randint(network.config.vocab_size, (batch, length + 1))
    return Case(network, (tokens[:, :-1].contiguous(),), (tokens[:, 1:].contiguous(),), lambda out: out.logits,
                lambda out, y: F.cross_entropy(out.logits.flatten(0, 1), y.flatten()), adamw, f"{batch} x {length} tokens")


def graph(tiny: bool) -> Case:
    nodes, count, inside = (20, 60, 8) if tiny else (2000, 20000, 64)
    network = networks.GraphNetwork(inside, 4 if tiny else 16, 2 if tiny else 8, 7)
    # A loop at each node, as GAT has it.
    edges = torch.cat([torch.randint(nodes, (2, count)), torch.arange(nodes).expand(2, -1)], 1)
    return Case(network, (torch.randn(nodes, inside), edges), (torch.randint(7, (nodes,)),), same, F.cross_entropy, adamw,
                f"{nodes} nodes, {edges.shape[1]} edges")


def detector(tiny: bool) -> Case:
    side, images, width = (64, 2, 8) if tiny else (256, 2, 32)
    network = networks.Detector(width, 5, 12 if tiny else 48)
    corners = torch.rand(images, 3, 2) * side / 2
    truth = torch.cat([corners, corners + side / 8 + torch.rand(images, 3, 2) * side / 4], -1)
    anchors = (side // network.STRIDE) ** 2 * len(network.SIZES)
    return Case(network, (torch.randn(images, 3, side, side),),
                (truth, torch.randint(1, 5, (images, 3)), torch.randint(2, (images, anchors))),
                lambda out: out["classes"], networks.detector_loss, sgd, f"{images} x 3 x {side} x {side}")


MODELS = {
    "ResNet-50": resnet50,
    "MobileNetV3-large": mobilenet_v3,
    "ViT-B/16": vit_b_16,
    "U-Net with attention": unet,
    "LSTM classifier": lambda tiny: recurrent(nn.LSTM, tiny),
    "GRU classifier": lambda tiny: recurrent(nn.GRU, tiny),
    "BERT-base": bert,
    "GPT-2 small": gpt2,
    "Graph attention": graph,
    "Detector head": detector,
}


def make(name: str, tiny: bool) -> Case:
    torch.manual_seed(sum(name.encode()))
    return MODELS[name](tiny)
