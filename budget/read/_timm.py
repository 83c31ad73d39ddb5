"""Classes of transformers with parts from timm, where timm is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from ..named import Any

# timm's residual networks as transformers' own: kind of layer, depths, widths. The same weights.
RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2), 64), "resnet34": ("basic", (3, 4, 6, 3), 64),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 256), "resnet101": ("bottleneck", (3, 4, 23, 3), 256),
}  # fmt: skip


def without_timm(config: Any) -> bool:
    """Whether a backbone of timm, which is not installed, was replaced by transformers' own."""
    backbone: Any = getattr(config, "backbone_config", None)
    named = RESNETS.get(getattr(backbone, "backbone", None) or "")
    if named is None or find_spec("timm") or backbone.output_stride:
        return False
    from transformers import ResNetConfig

    kind, depths, width = named
    widths = [width * 2**i for i in range(4)]
    config.backbone_config = ResNetConfig(
        num_channels=backbone.num_channels, depths=list(depths), hidden_sizes=widths, layer_type=kind,
        out_indices=list(backbone.out_indices or (4,)),
    )  # fmt: skip
    return True


def text_alone(config: Any) -> Any:
    """The text model's config, where the one around it has a tower from timm, which is not installed."""
    from transformers import AutoModel, TimmWrapperModel

    classes = AutoModel._model_mapping  # noqa: SLF001 - there is no public one
    parts = [type(getattr(config, name, None)) for name in config.sub_configs]
    wrapped = any(part in classes and classes[part] is TimmWrapperModel for part in parts)
    return config.get_text_config() if wrapped and not find_spec("timm") else None


def freeze_as_timm(module: Any) -> None:
    """Train the backbone's last three stages, as the class does with timm's own."""
    for part in module.modules():
        if type(part).__name__ == "ResNetBackbone":
            for name, p in part.named_parameters():
                p.requires_grad_(not name.startswith(("embedder", "encoder.stages.0")))
