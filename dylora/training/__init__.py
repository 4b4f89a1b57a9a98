"""From a configuration to a trained and scored adapter; `experiment` is where a run starts."""
