"""Images from the command line: `python3 -m hack.images build|load|push|tag|list`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hack.cluster.layout import DEFAULT_NAME, REPOSITORY, binaries, cluster_named, state_root
from hack.cluster.processes import run
from hack.images import builder, catalogue, loading


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m hack.images", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="build what changed")
    verb = verbs.add_parser("load", help="build what changed and import it into every node of the local cluster")
    verb.add_argument("--name", default=os.environ.get("CLUSTER_NAME", DEFAULT_NAME), help="cluster name")
    verb = verbs.add_parser("push", help="build with docker or buildah and push to a registry (you are logged in)")
    verb.add_argument("registry", help="put before every image, e.g. registry.example.com/team")
    verbs.add_parser("tag", help="print the tag of the product images")
    verbs.add_parser("list", help="print all references")
    arguments = parser.parse_args(argv)
    shop = builder.Workshop(state_root(), binaries())
    try:
        match arguments.verb:
            case "tag":
                print(catalogue.product_tag())
            case "list":
                print("\n".join(image.reference for image in catalogue.all_images(catalogue.product_tag())))
            case "build":
                with builder.alone(shop):
                    for image in catalogue.all_images(catalogue.product_tag()):
                        builder.make(shop, image)
            case "load":
                cluster = cluster_named(arguments.name)
                loading.load(shop, cluster, catalogue.all_images(catalogue.product_tag()))
            case "push":
                with builder.alone(shop):
                    push(shop, arguments.registry.rstrip("/"))
    except (RuntimeError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def push(shop: builder.Workshop, registry: str) -> None:
    """What the chart puts `image.registry` before, by docker where its daemon answers, else by buildah.

    That is the product, tagged with its content, and the databases and metrics of a trial; the SFU is upstream's.
    """
    docker, tag = docker_answers(), catalogue.product_tag()
    for image in [*catalogue.product_images(tag), *catalogue.trial_images()]:
        target = f"{registry}/{image.reference}"
        if docker:
            dockerfile = str(REPOSITORY / catalogue.DOCKERFILE)
            docker_build = ["docker", "build", "--target", image.target, "--file", dockerfile, "--tag", target]
            subprocess.run([*docker_build, str(REPOSITORY)], check=True)
            subprocess.run(["docker", "push", target], check=True)
        else:
            builder.make(shop, image)
            trust = ["--tls-verify=false"] if on_loopback(registry) else []
            subprocess.run(
                [*shop.buildah, "push", "--quiet", *trust, image.full_name, f"docker://{target}"], check=True
            )
        builder.say(f"pushed {target}")
    print(f"helm install: --set image.registry={registry} --set image.tag={tag}")


def on_loopback(registry: str) -> bool:
    """Such a registry may speak plain HTTP: docker thinks so by itself, buildah has to be told (pure)."""
    host = registry.partition("/")[0].rpartition(":")[0] or registry.partition("/")[0]
    return host == "localhost" or host.startswith("127.") or host == "[::1]"


def docker_answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def kind_load(cluster: str, shop: builder.Workshop, tag: str) -> None:
    """All images into a kind cluster: built by docker, the SFU's from its binary; nothing is pulled but base images."""
    for image in [*catalogue.product_images(tag), *catalogue.trial_images()]:
        dockerfile = str(REPOSITORY / catalogue.DOCKERFILE)
        build = ["docker", "build", "--quiet", "--target", image.target, "--file", dockerfile, "--tag", image.reference]
        subprocess.run([*build, str(REPOSITORY)], check=True)
    sfu = catalogue.livekit_image()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(shop.binaries / sfu.binary, folder)
        entry = builder.ENTRYPOINTS[sfu.binary]
        Path(folder, "Dockerfile").write_text(f"FROM scratch\nCOPY {sfu.binary} /{sfu.binary}\nENTRYPOINT {entry}\n")
        subprocess.run(["docker", "build", "--quiet", "--tag", sfu.reference, folder], check=True)
    references = [image.reference for image in catalogue.all_images(tag)]
    run([str(shop.binaries / "kind"), "load", "docker-image", "--name", cluster, *references])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
