"""Language models that the brain may think with: one protocol, two clients.

`anthropic:MODEL` speaks the Messages API through `anthropic`; any other `PROVIDER:MODEL` goes through
`huggingface_hub`'s inference client, to Hugging Face's providers or to an address of one's own that speaks OpenAI's
chat completions (vLLM, Ollama, a gateway).

- `talk`: what is said, as frozen values that a transcript can hold
- `errors`: what a provider may answer instead, and what to do about each
- `patience`: a turn tried again as a whole, and what its broken attempts have cost
- `prices`: what a turn cost
- `messages_api`, `chat_completions`: the two clients
- `choice`: from a setting to a client
"""
