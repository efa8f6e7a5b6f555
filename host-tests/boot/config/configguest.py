"""Runs in the image: what it reads from the configuration that the loader gave, an item a line.

host-tests/boot/test_modules.py reads these lines.
"""

import hw
from pvfw import options


def main():
    try:
        chosen = options.read(hw.boot(), ("dump",), ("halt", "poweroff", "reboot"))
        config = chosen.config
        print("names", [str(target) for target in chosen.targets])
        print("then", chosen.then)
        print("release", config.release)
        print("targets", [(target.name, target.uuid) for target in config.targets])
        print("level", config.level)
        print("compression", config.algorithm, config.compression)
        print("facts", sorted(config.facts.items()))
        print("recipients", config.recipients)
        print("log", config.log_clear)
        print("nonce", config.nonce)
        print("problems", chosen.problems)
        print("end", "")
    finally:
        hw.halt()
