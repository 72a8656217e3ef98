"""Read the test images that trained networks are measured on."""

from collections.abc import Sequence

from retrain.networks_settings import NetworksConfig
from wsrnas.data.datasets import load_dataset_once, source_of
from wsrnas.data.imagenet import ImageFileLoader, list_imagenet
from wsrnas.runtime.distributed import World
from wsrnas.subjects.images import EvaluationImages, evaluated_dataset, folder_of_images, images_of
from wsrnas.subjects.model_source import ModelSource


def load_images(config: NetworksConfig, networks: Sequence[ModelSource], world: World, dataset: str, batch_size: int,
                workers: int) -> EvaluationImages:
    """Return the test images: whole on the device or, for ImageNet, as files to decode.

    Args:
        config: which images of the data set, and where they are.
        networks: the networks that are measured on them.
        world: the processes.
        dataset: name of the data set; empty: that of the networks.
        batch_size: images at a time.
        workers: processes that decode ImageNet's images.

    Raises:
        InputError: the data set is not known, or cannot be read.
    """
    dataset = evaluated_dataset(networks, dataset)
    source = source_of(dataset)
    folder = folder_of_images(config.data, networks, dataset, world.is_main)
    if not source.large:
        data = load_dataset_once(world, dataset, folder, config.download, max_test=config.max_test,
                                 seed=config.seed, test_alone=True)
        return images_of(data, batch_size, config.seed, world.device)
    described = [network.description for network in networks if network.description]
    trained_on = described[0]["image_shape"] if described else source.image_shape
    size = trained_on[1]  # all images are resized to those of the first network's training
    _, files = list_imagenet(folder, max_test=config.max_test, seed=config.seed)
    loader = ImageFileLoader(files, batch_size, config.seed, "test", image_size=size, workers=workers,
                             device=world.device)
    fingerprint = f"{files.fingerprint(sizes=True)['hash']}-{size}px"  # the pixels depend on the size, too
    return EvaluationImages(dataset, loader, len(files.class_names), (3, size, size), fingerprint, files.class_names)
