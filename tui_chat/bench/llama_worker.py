"""llama.cpp in a process of its own: ids in, tokens per second out; greedy.

Started as `python -m tui_chat.bench.llama_worker --model FILE.gguf:THREADS`.
"""

import argparse
import json
import sys
import time
from itertools import islice

from llama_cpp import Llama


def main() -> None:
    """Answer each line of standard input with one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    path, _, threads = parser.parse_args().model.rpartition(":")
    llama = Llama(
        path, n_ctx=0, n_threads=int(threads), n_threads_batch=int(threads), verbose=False
    )
    for line in sys.stdin:
        request = json.loads(line)
        ids, times = [], []
        # Of a prompt that it has just read, it reads only the last id again.
        for token in islice(
            llama.generate(request["prompt_ids"], top_k=1, temp=0.0), request["tokens"]
        ):
            ids.append(token)
            times.append(time.perf_counter())
        rate = (len(ids) - 1) / (times[-1] - times[0])
        answer = {"tokens_per_second": rate, "new_ids": ids, "error": ""}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
