"""Models and tasks as people write them; of what is not ours, what the user calls it."""

MODELS = {  # as their papers write them
    "roberta_base": "RoBERTa-base",
    "roberta_large": "RoBERTa-large",
    "minilm": "MiniLM",
    "gpt2": "GPT-2",
    "gpt2_medium": "GPT-2 medium",
    "gpt2_large": "GPT-2 large",
    "gpt2_novels": "GPT-2 of novels",
}
TASKS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "sst2_8k": "SST-2 (8,000 rows)",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "rte": "RTE",
    "wnli": "WNLI",
    "qnli": "QNLI",
    "qqp": "QQP",
    "mnli": "MNLI",
    "e2e": "E2E",
    "dart": "DART",
    "webnlg": "WebNLG",
}


def model_name(model: str) -> str:
    """A model's name in captions."""
    return MODELS.get(model, model)


def task_name(task: str) -> str:
    """A task's name in captions."""
    return TASKS.get(task, task)
