"""What passes as the same losses and weights."""

import prove_gpus
import torch


def test_other_losses_or_weights_do_not_pass_as_the_same() -> None:
    log = [{"loss": 0.5}, {"loss": -0.25}, {"train_runtime": 1.0}]
    one = {"start": torch.zeros(2), "weights": torch.ones(2), "log": log}
    assert prove_gpus.apart(one, one) | {"moved": 0} == {
        "losses": [0.5, -0.25],
        "losses_off": 0,
        "weights_off": 0,
        "moved": 0,
    }
    other = {"weights": torch.tensor([1.0, 1.1]), "log": [{"loss": 0.5}, {"loss": -0.2501}]}
    off = prove_gpus.apart(one, other)
    assert off["losses_off"] > prove_gpus.LOSS_TOLERANCE
    assert off["weights_off"] > prove_gpus.WEIGHT_TOLERANCE
