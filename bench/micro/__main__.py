"""python -m bench.micro: every hop, one after the other."""

from bench.micro import run_all

if __name__ == "__main__":
    run_all(lambda line: print(line, flush=True))
