"""Will training a synthesizer pay here: what rollouts and an untrained model say beforehand."""
