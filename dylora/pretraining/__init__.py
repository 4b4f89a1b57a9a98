"""Small language models from plain text, for backbones where none can be had."""
