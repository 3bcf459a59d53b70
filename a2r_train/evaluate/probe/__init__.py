"""Will training a synthesizer pay? What rollouts and an untrained model say before it starts."""
