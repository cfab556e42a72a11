"""What comes in: checkpoints as Hugging Face and OpenAI publish them, checked and read tensor by tensor.

It imports `model`, for names and shapes of the tensors, and the runtime.
"""
