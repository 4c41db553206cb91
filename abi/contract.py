"""The contract as data: loads the tables of abi/ into plain objects. Python standard library only."""

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

ABI = Path(__file__).resolve().parent


def read_table(name):
    with open(ABI / name, encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@dataclass
class Param:
    type: str
    name: str
    mark: str = ""  # in, out, inout: only aclnn prototypes say it
    text: str = ""  # the C declarator where it is not "type name": arrays, function pointers, "..."

    @property
    def declaration(self):
        return self.text or spell(self.type, self.name)


def spell(type_, name):
    """`const char *` + `p` -> `const char* p`; array types `char[128]` + `x` -> `char x[128]`."""
    array = re.match(r"^(.*?)\s*((?:\[\d*\])+)$", type_)
    if array:
        return f"{spell(array[1], name)}{array[2]}"
    function = re.match(r"^(.*)\(\*(?:const)?\)(\(.*\))$", type_)
    if function:
        return f"{function[1].strip()} (*{name}){function[2]}"
    return f"{tight(type_)} {name}".strip()


def tight(type_):
    return re.sub(r"\s*\*\s*", "* ", type_.strip()).replace("* *", "**").strip()


@dataclass
class Function:
    name: str
    returns: str
    params: list
    header: str = ""
    library: str = ""
    namespace: str = ""
    source: str = ""
    note: str = ""

    @property
    def parameter_text(self):
        return ", ".join(p.declaration for p in self.params)

    def prototype(self, empty="void"):
        return f"{tight(self.returns)} {self.name}({self.parameter_text or empty})"


@dataclass
class Operator:
    """One aclnn operator: phase one takes `params` and then workspaceSize and executor."""

    name: str
    params: list
    header: str
    row: dict

    @property
    def engine_name(self):
        return self.name[len("aclnn"):] if self.name.startswith("aclnn") else self.name


@dataclass
class Type:
    """An item of a header: a constant, enum, opaque handle, typedef or struct, as C text."""

    name: str
    header: str
    kind: str
    text: str
    uses: set = field(default_factory=set)


def split_top_level(text):
    """Splits at the commas that are not inside (), <> or []."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += char in "(<["
        depth -= char in ")>]"
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    if current.strip():
        parts.append(current.strip())
    return parts


def parse_c_param(text, index):
    if text == "...":
        return Param("...", "", text="...")
    pointer = re.match(r"^(.*)\(\*(\w+)\)(\(.*\))$", text)
    if pointer:
        return Param(f"{pointer[1]}(*){pointer[3]}", pointer[2], text=text)
    array = re.match(r"^(.*?)\s*\b(\w+)((?:\[\d*\])+)$", text)
    if array:
        return Param(f"{array[1]}{array[3]}", array[2], text=f"{tight(array[1])} {array[2]}{array[3]}")
    named = re.match(r"^(.*[\s*&>])(\w+)$", text)
    if named and named[2] not in ("bool", "size_t", "int", "char", "uint64_t", "uint32_t", "int32_t", "int64_t"):
        return Param(tight(named[1]), named[2])
    return Param(tight(text), f"arg{index}")


def load_functions():
    """Every function of the runtime, model, profiling, queue, HCCL and driver interfaces; C interface only."""
    functions = {}
    for row in read_table("functions.tsv"):
        params = [parse_c_param(p, i) for i, p in enumerate(split_top_level(row["parameters"]))]
        functions[row["function"]] = Function(row["function"], row["returns"], params, row["header"], row["library"],
                                              row["namespace"], row["source"], row["note"])
    for row in read_table("aclnn_helpers.tsv"):
        params = [parse_c_param(p.strip(), i) for i, p in enumerate(row["params"].split(";")) if p.strip()]
        functions[row["function"]] = Function(row["function"], row["returns"], params, row["header"], row["library"], "",
                                              row["source"] or "aclnn/helpers.tsv", row["kind"])
    return functions


def is_cxx(function):
    text = function.parameter_text + function.returns
    return bool(function.namespace) or "::" in text or "&" in text


def load_operators():
    operators = []
    for row in read_table("aclnn.tsv"):
        params = []
        for text in filter(None, row["params"].split("; ")):
            declaration, mark = re.match(r"^(.*) \[(\w+)\]$", text).groups()
            type_, name = declaration.rsplit(" ", 1)
            params.append(Param(tight(type_), name, mark))
        operators.append(Operator(row["op"], params, "aclnnop/" + row["header"], row))
    return operators


def load_nullable():
    """(op, parameter) pairs that may be NULL although the name lacks "Optional"; op "*" matches every operator."""
    return {(row["op"], row["parameter"]) for row in read_table("nullable.tsv")}


def may_be_null(nullable, op, param):
    return "ptional" in param.name or (op.name, param.name) in nullable or ("*", param.name) in nullable
