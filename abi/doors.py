"""What each shared object exports, and the answers of names that have no implementation.

A required name (a client binds it at load, or fails without it) is always exported. Until someone defines it in
libs/<library>/*.cc, a weak definition answers the documented error with its name. An optional name is exported only
when it is defined: clients change their path when they see it.
"""

import re
from dataclasses import dataclass

import contract
from contract import ABI, read_table
from headers import in_c_interface

LINK_LISTS = ["torch_npu", "torch_npu.torchair", "torch_npu.atb", "onnxruntime_cann", "ggml_cann"]
DLSYM_LISTS = ["torch_npu.dlsym"]
NNOPBASE = "nnopbase"

# Library by header, for names that no client list attributes. The longest prefix wins.
LIBRARY_OF_HEADER = {
    "acl/": "ascendcl", "acl/acl_op_compiler.h": "acl_op_compiler", "acl/acl_tdt": "acl_tdt_channel",
    "acl/acl_dump.h": "ascend_dump", "acl/acl_prof.h": "msprofiler", "acl/super_kernel.h": "ascendsk",
    "acl/ops/acl_cblas.h": "acl_cblas", "hccl/hccl.h": "hccl", "hccl/lcal_api.h": "lcal", "aml/": "ascend_ml",
    "profiling/": "profapi", "runtime/": "runtime", "ge/": "ge_runner", "graph/": "graph", "aclnn/": NNOPBASE,
    "aclnnop/": "opapi",
}
# Names that belong with others of their kind rather than with their header.
LIBRARY_OF_NAME = {"aclrtCtxGetSysParamOpt": "acl_op_compiler"}

# What a C function without an implementation returns, by its return type. Codes are the published ones.
ANSWERS = {
    "aclError": "200006",      # ACL_ERROR_FEATURE_UNSUPPORTED
    "aclnnStatus": "561003",   # ACLNN_ERR_INNER_FIND_KERNEL_ERROR
    "rtError_t": "207000",     # ACL_ERROR_RT_FEATURE_NOT_SUPPORT
    "HcclResult": "5",         # HCCL_E_NOT_SUPPORT
    "aclDataType": "-1", "aclFormat": "-1", "int": "-1", "int32_t": "-1", "AmlStatus": "-1",
    "bool": "0", "size_t": "0", "uint64_t": "0", "uint32_t": "0", "int64_t": "0", "float": "0",
}
GRAPH_FAILED = "0xFFFFFFFFU"


@dataclass(frozen=True)
class Required:
    """A name that some client cannot do without."""

    library: str
    name: str


def bare(soname):
    return re.sub(r"^lib|\.so.*$", "", soname)


def rows_of(name):
    for line in (ABI / "link" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def load_required(helpers, operators):
    """Every (library, symbol) that the client lists require."""
    by_name = {op.name for op in operators}
    names = set()
    for client in LINK_LISTS:
        names |= {Required(bare(row[0]), row[1]) for row in rows_of(client)}
    for client in DLSYM_LISTS:
        for library, name, need, *_ in rows_of(client):
            if need != "required":
                continue
            if name in by_name:
                names |= {Required("opapi", name), Required("opapi", name + "GetWorkspaceSize")}
            else:
                owner = bare(helpers[name].library) if name in helpers else bare(library.replace("(*)", ""))
                names.add(Required(owner, name))
    return names


def library_of(function, owners):
    if function.name in owners or function.name in LIBRARY_OF_NAME:
        return owners.get(function.name) or LIBRARY_OF_NAME[function.name]
    if function.library.startswith("lib"):
        return bare(function.library)
    matches = [prefix for prefix in LIBRARY_OF_HEADER if function.header.startswith(prefix)]
    return LIBRARY_OF_HEADER[max(matches, key=len)] if matches else ""


class Doors:
    def __init__(self):
        self.functions = contract.load_functions()
        self.operators = contract.load_operators()
        helpers = {row["function"]: self.functions[row["function"]] for row in read_table("aclnn_helpers.tsv")}
        self.required = load_required(helpers, self.operators)
        self.cxx = {row["symbol"]: row for row in read_table("cxx.tsv")}
        self.owners = {r.name: r.library for r in self.required}
        for client in DLSYM_LISTS:
            for library, name, *_ in rows_of(client):
                if name not in self.owners and "(*)" not in library and "(" not in name:
                    self.owners[name] = bare(library)
        self.libraries = [row["library"] for row in read_table("doors.tsv")]
        unknown = {r.library for r in self.required} - set(self.libraries)
        if unknown:
            raise SystemExit(f"abi/doors.tsv lacks the libraries {sorted(unknown)} that the client lists require")

    def known_names(self, library):
        """Every name that this library may export: the version script hides all others."""
        names = {r.name for r in self.required if r.library == library}
        names |= {n for n, f in self.functions.items() if library_of(f, self.owners) == library and not f.namespace}
        names |= {s for s, row in self.cxx.items() if bare(row["library"]) == library}
        if library in ("graph", "ge_runner", "ge_compiler", "fmk_onnx_parser"):
            names |= {row["mangled"] for row in read_table("ge_symbols.tsv") if row["mangled"].startswith("_Z")}
        if library == "opapi":
            for op in self.operators:
                names |= {op.name, op.name + "GetWorkspaceSize"}
        return names

    def version_script(self, library):
        names = "".join(f"    {name};\n" for name in sorted(self.known_names(library)))
        exported = f"  global:\n{names}" if names else ""
        return f"{{\n{exported}  local: *;\n}};\n"

    def stubs(self, library):
        """The weak answers of this library's required names; operators of opapi come from doors that know the engine."""
        operators = {n for op in self.operators for n in (op.name, op.name + "GetWorkspaceSize")}
        names = sorted(r.name for r in self.required if r.library == library and r.name not in operators)
        headers = sorted({self.functions[n].header for n in names
                          if n in self.functions and in_c_interface(self.functions[n].header)})
        lines = [f"// Generated by abi/generate.py: lib{library}.so's required names that nobody has implemented answer so.",
                 "#include <cstddef>", "#include <cstdint>", "#include <cstdio>", "#include <cstring>", "",
                 '#include "base/error.h"', *(f'#include "{h}"' for h in headers), "",
                 '#pragma GCC diagnostic ignored "-Wunused-parameter"', '#pragma GCC visibility push(default)', ""]
        if any(n.startswith("_Z") for n in names):
            lines += CXX_PRELUDE
        for index, name in enumerate(names):
            if name.startswith("_Z"):
                lines += cxx_stub(index, self.cxx[name])
            elif name in self.functions and not contract.is_cxx(self.functions[name]):
                lines += c_stub(self.functions[name])
            else:
                lines += [f'extern "C" __attribute__((weak)) int64_t {name}() {{',
                          f'  return anycann::NotImplemented("{name}", 200006);', "}", ""]
        return "\n".join(lines)


def c_stub(function):
    """Typed where the client headers declare it; elsewhere by its return type alone, which is all that the ABI needs."""
    returns = contract.tight(function.returns)
    call = f'anycann::NotImplemented("{function.name}", {ANSWERS.get(returns, "200006")})'
    if returns == "void":
        body = f"{call};"
    elif returns.endswith("*"):
        body = f"{call};\n  return nullptr;"
    elif returns in ("aclError", "aclnnStatus", "rtError_t", "int", "int32_t", "AmlStatus"):
        body = f"return {call};"
    elif returns in ANSWERS:
        body = f"{call};\n  return static_cast<{returns}>({ANSWERS[returns]});"
    else:
        body = f"{call};\n  return {returns}{{}};"
    prototype = function.prototype(empty="") if in_c_interface(function.header) else f"{returns} {function.name}()"
    return [f'extern "C" __attribute__((weak)) {prototype} {{', f"  {body}", "}", ""]


CXX_PRELUDE = [
    "namespace {",
    "// C++ clients rarely ask for the last error: say it once per name on stderr as well.",
    "void Absent(const char* name) {",
    "  static thread_local const char* said = nullptr;",
    "  anycann::NotImplemented(name, 200006);",
    "  if (said != name) std::fprintf(stderr, \"anycann: %s is not implemented\\n\", name);",
    "  said = name;",
    "}",
    "// What clients destroy inline as a ge::Operator: a virtual destructor, then a shared pointer.",
    "struct EmptyOperator {",
    "  virtual ~EmptyOperator() = default;",
    "  void* implementation[2] = {};",
    "};",
    "}  // namespace",
    "// The empty representation of the pre-C++11 std::string; text begins 24 bytes in.",
    'extern "C" char empty_string_rep[] __asm__("_ZNSs4_Rep20_S_empty_rep_storageE");',
    "",
]


def cxx_stub(index, row):
    """A weak definition under a mangled name. Objects are returned through the hidden pointer, first argument."""
    name = re.sub(r"\(.*", "", row["demangled"]).split(" ")[-1]
    kind, _, rest = row["answer"].partition(" ")
    clear = {"and clear 1": ["if (a != nullptr) *a = nullptr;"], "and clear 2": ["if (b != nullptr) *b = nullptr;"]}
    signature, body = {
        "status": ("uint32_t F()", [f"return {GRAPH_FAILED};"]),
        "fail": ("int32_t F(void** a, void** b)", [*clear.get(rest, []), "return -1;"]),
        "false": ("bool F()", ["return false;"]),
        "null": ("void* F()", ["return nullptr;"]),
        "text": ("const char* F()", ['return "";']),
        "value": ("int64_t F()", [f"return {rest};"]),
        "nothing": ("void F()", []),
        "construct": ("void F(void* self)", [f"std::memset(self, 0, {rest});"]),
        "object": ("void* F(void* result)", [f"return std::memset(result, 0, {rest});"]),
        "operator": ("void* F(void* result)", ["return new (result) EmptyOperator();"]),
        "old": ("void* F(void* result)", ["*static_cast<char**>(result) = empty_string_rep + 24;", "return result;"]),
    }[kind]
    symbol = f"cxx_stub_{index}"
    declared = signature.replace("F(", symbol + "(")
    lines = [f"// {row['demangled']}", f'extern "C" __attribute__((weak)) {declared} __asm__("{row["symbol"]}");',
             f'extern "C" {declared} {{', f'  Absent("{name}");']
    return lines + [f"  {line}" for line in body] + ["}", ""]
