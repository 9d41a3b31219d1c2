"""Built images into the nodes of the local cluster."""

from __future__ import annotations

from collections.abc import Iterable

from hack.cluster import node
from hack.cluster.layout import Cluster, Node
from hack.images import store
from hack.images.builder import Workshop, alone, make
from hack.images.catalogue import Image, node_images


def load(shop: Workshop, cluster: Cluster, images: Iterable[Image]) -> None:
    """Builds what changed and gives it to every node; a node gets each content once."""
    with alone(shop):
        made = [make(shop, image) for image in images]
        for one in cluster.nodes:
            give(shop, cluster, one, made)


def give(shop: Workshop, cluster: Cluster, one: Node, images: Iterable[Image]) -> None:
    stamps = one.state / "images"
    stamps.mkdir(exist_ok=True)
    for image in images:
        stamp = stamps / image.name
        if not stamp.exists() or stamp.read_text() != image.mark:
            store.send(shop.layout, image.full_name, node.blobs(cluster, one), node.importer(cluster, one))
            stamp.write_text(image.mark)


def furnish(shop: Workshop, cluster: Cluster, one: Node) -> None:
    """The images that a node needs before any pod."""
    with alone(shop):
        give(shop, cluster, one, [make(shop, image) for image in node_images()])
