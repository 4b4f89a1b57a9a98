"""From run records to tables, figures, the report and model cards. No torch, no training."""
