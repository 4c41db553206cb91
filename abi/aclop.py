"""The legacy operators (aclop): abi/aclop.tsv binds a GE type to an aclnn operator, or names a function of ops/aclop.

A row's `arguments` hold one expression for each parameter of the aclnn operator, in its order:

    x              the input or output of that name (abi/ge_operators.tsv); where the parameter is no tensor, its values,
                   which are read before the operator runs
    @axis          the attribute, with GE's default; @axis:0 gives a default, for what GE's table doesn't have
    1 true null    literals; "text" too
    f(a,b)         a method of Arguments (ops/aclop/arguments.h): FUNCTIONS below

A row without arguments names a function Status aclop::NAME(Call&, Arguments&) that is written by hand.
"""

import re
from dataclasses import dataclass

import contract
import operators

# name: (method, what it takes, what it gives); t: a tensor, v: a value, i: an integer, w: any number of literals or values
FUNCTIONS = {
    "index": ("Index", "vw", "v"), "tail": ("Tail", "vi", "v"), "from": ("From", "vv", "v"), "first": ("First", "v", "v"),
    "halves": ("Halves", "v", "v"), "spatial": ("Spatial", "vvt", "v"), "pairs": ("PairsReversed", "vt", "v"), "or": ("Or", "vv", "v"),
    "concat": ("Concat", "w", "v"), "dims": ("Dims", "t", "v"), "dtype": ("Type", "t", "v"), "is": ("Is", "vv", "v"),
    "not": ("Not", "v", "v"), "updated": ("Updated", "tt", "t"), "unsqueezed": ("Unsqueezed", "tv", "t"),
    "shaped": ("Shaped", "tt", "t"),
}
CONVERSIONS = {"aclScalar": "Scalar", "aclIntArray": "Integers", "aclFloatArray": "Floats", "aclBoolArray": "Bools", "char": "String",
               "bool": "Flag", "double": "Real", "float": "Real"}
DTYPES = {"DT_FLOAT": 0, "DT_INT8": 2, "DT_INT32": 3, "DT_INT64": 9}


@dataclass
class Row:
    type: str
    aclnn: str
    arguments: str
    inputs: list
    outputs: list
    attributes: dict


def names(text):
    return [item.split("|")[0] for item in text.split(";") if item]


def load():
    graph = {row["op"]: row for row in contract.read_table("ge_operators.tsv")}
    rows = []
    for row in contract.read_table("aclop.tsv"):
        known = graph.get(row["type"])
        if known is None:
            raise SystemExit(f"abi/aclop.tsv: {row['type']} is not in abi/ge_operators.tsv")
        attributes = {n: (t, d) for n, t, d in (item.split("|", 2) for item in split(known["attributes"], ";"))}
        rows.append(Row(row["type"], row["aclnn"], row["arguments"], names(known["inputs"]), names(known["outputs"]), attributes))
    return sorted(rows, key=lambda r: r.type)


def split(text, separator):
    """Splits outside parentheses, braces and quotes."""
    parts, depth, quoted, current = [], 0, False, ""
    for char in text:
        quoted ^= char == '"'
        depth += (char in "({") - (char in ")}") if not quoted else 0
        if char == separator and depth == 0 and not quoted:
            parts.append(current)
            current = ""
        else:
            current += char
    return [p for p in [*parts, current] if p.strip()]


def literal(text, kind=""):
    """A C++ Value of a literal of the table or of GE's default of an attribute; None when it is none."""
    text = text.strip()
    if text.startswith("{"):
        element = "double" if "Float" in kind else "int64_t"
        items = ", ".join(f"static_cast<{element}>({i.strip()})" for i in text.strip("{}").split(",") if i.strip())
        return f"Value(std::vector<{element}>{{{items}}})"
    if text in ("true", "false") or text.startswith('"'):
        return f"Value({text})"
    if text in DTYPES:
        return f"Value(int64_t{{{DTYPES[text]}}})"
    if not re.fullmatch(r"-?[\d.]+(e-?\d+)?f?", text):
        return None
    if kind == "Float" or re.search(r"[.e]", text):
        return f"Value(double{{{text.rstrip('f')}}})"
    return f"Value(int64_t{{{text}}})"


class Compiler:
    def __init__(self, row):
        self.row = row

    def fail(self, what):
        raise SystemExit(f"abi/aclop.tsv: {self.row.type}: {what}")

    def attribute(self, text):
        name, _, given = text.partition(":")
        kind, default = self.row.attributes.get(name, ("", given))
        default = given or default
        if not default:
            self.fail(f"attribute {name} is not GE's: give a default, @{name}:0")
        if default == "<required>":
            return f'given.Attr("{name}")'
        value = literal(default, kind)
        if value is None:
            self.fail(f"attribute {name} has default {default}")
        return f'given.Attr("{name}", {value})'

    def call(self, text, wanted):
        name, arguments = re.fullmatch(r"(\w+)\((.*)\)", text).groups()
        if name not in FUNCTIONS or FUNCTIONS[name][2] != wanted:
            self.fail(f"{name} is not a function that gives a {'tensor' if wanted == 't' else 'value'}")
        method, takes, _ = FUNCTIONS[name]
        parts = split(arguments, ",")
        fixed = takes.rstrip("w")
        emitted = [self.tensor(p) if kind == "t" else p if kind == "i" else self.value(p) for kind, p in zip(fixed, parts)]
        if "w" in takes:
            rest = parts[len(fixed):]
            emitted.append("{" + ", ".join(p if p.startswith('"') else self.value(p) for p in rest) + "}")
        elif len(parts) != len(takes):
            self.fail(f"{name} takes {len(takes)} arguments")
        return f"given.{method}({', '.join(emitted)})"

    def tensor(self, text):
        if text in self.row.outputs and text not in self.row.inputs:
            return f"given.Out({self.row.outputs.index(text)})"
        if text.startswith("#"):  # an output that GE's table doesn't have, by its position
            return f"given.Out({int(text[1:])})"
        if text.endswith("'"):  # the output of a name that is an input's too
            return f"given.Out({self.row.outputs.index(text[:-1])})"
        if text in self.row.inputs:
            return f"given.In({self.row.inputs.index(text)})"
        if "(" in text:
            return self.call(text, "t")
        return self.fail(f"{text} is neither an input nor an output")

    def value(self, text):
        text = text.strip()
        if text.startswith("@"):
            return self.attribute(text[1:])
        if "(" in text and not text.startswith('"'):
            return self.call(text, "v")
        if text in self.row.inputs:
            return f"given.Constant({self.row.inputs.index(text)})"
        return literal(text) or self.fail(f"{text} is no value")

    def argument(self, param, text):
        plain = operators.plain(param.type)
        if text == "null":
            return "nullptr"
        if plain == "aclTensor":
            return self.tensor(text)
        if plain == "aclTensorList":
            return f"given.List({self.row.inputs.index(text)})"
        value = f"given.{CONVERSIONS.get(plain, 'Integer')}({self.value(text)})"
        return value if plain in CONVERSIONS and plain != "float" else f"static_cast<{plain}>({value})"


def face(row, op, nullable):
    compiler = Compiler(row)
    arguments = split(row.arguments, " ")
    if len(arguments) != len(op.params):
        compiler.fail(f"{op.name} has {len(op.params)} parameters, the row {len(arguments)} arguments")
    lines = [f"Status {row.type}_(Call& call, Arguments& given) {{"]
    for param, text in zip(op.params, arguments):
        lines.append(f"  {param.type if '*' in param.type else 'const ' + operators.plain(param.type)} {param.name} = "
                     f"{compiler.argument(param, text)};")
    lines.append("  RETURN_IF_ERROR(given.status());")
    lines += [f"  {line}" for line in operators.checks(op, nullable)]
    lines += [f"  return aclnn::{op.engine_name}({', '.join(['call', *(p.name for p in op.params)])});", "}"]
    return lines


def generate():
    """{file name: text}: the table of types, and the declarations of those written by hand."""
    rows, nullable = load(), contract.load_nullable()
    known = {op.name: op for op in contract.load_operators()}
    written = sorted({row.aclnn for row in rows if not row.arguments})
    header = ["// Generated by abi/generate.py from abi/aclop.tsv: legacy operators that are written by hand.", "#pragma once", "",
              '#include "ops/aclop/arguments.h"', "", "namespace anycann::aclop {", "",
              *(f"Status {name}(Call& call, Arguments& a);" for name in written), "", "}  // namespace anycann::aclop", ""]
    source = ["// Generated by abi/generate.py from abi/aclop.tsv: legacy operators as faces of aclnn operators.",
              '#include "aclnn_ops.h"', '#include "aclop_operators.h"', "", "namespace anycann::aclop {", "namespace {", ""]
    for row in rows:
        if row.arguments:
            if row.aclnn not in known:
                raise SystemExit(f"abi/aclop.tsv: {row.type}: {row.aclnn} is not in abi/aclnn.tsv")
            source += [*face(row, known[row.aclnn], nullable), ""]
    source += ["constexpr Operator kOperators[] = {",
               *(f'    {{"{row.type}", {f"{row.type}_" if row.arguments else row.aclnn}}},' for row in rows), "};", "",
               "}  // namespace", "", "std::span<const Operator> Operators() { return kOperators; }", "",
               "}  // namespace anycann::aclop", ""]
    return {"aclop_operators.h": "\n".join(header), "aclop_operators.cc": "\n".join(source)}
