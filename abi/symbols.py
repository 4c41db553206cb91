"""abi/NAME.symbols: the reviewed list of what libNAME.so exports. A change of an exported list is seen in review."""

import subprocess

from contract import ABI


def exported(library):
    listing = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return sorted(line.split()[-1].split("@")[0] for line in listing.splitlines())


def listed(name):
    path = ABI / f"{name}.symbols"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def refresh(directory, names, check):
    """Writes the lists; with `check`, prints the differences instead. Returns the exit status."""
    status = 0
    for name in names:
        now, before = exported(directory / f"lib{name}.so"), listed(name)
        if now == before:
            continue
        added, gone = sorted(set(now) - set(before)), sorted(set(before) - set(now))
        print(f"lib{name}.so: {len(added)} more, {len(gone)} fewer than abi/{name}.symbols")
        for sign, symbols in (("+", added), ("-", gone)):
            for symbol in symbols:
                print(f"  {sign} {symbol}")
        if check:
            status = 1
        else:
            (ABI / f"{name}.symbols").write_text("".join(f"{s}\n" for s in now), encoding="utf-8")
    return status
