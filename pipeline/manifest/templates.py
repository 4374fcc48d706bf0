"""Compiles the text of a key to a `Template` that renders quickly, or to an error with its line.

Text without `{{` is returned as it is; names and text only are joined without Jinja (about 1 microsecond); everything
else runs in the sandbox. Values are data: what they contain is never rendered again.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.visitor import NodeTransformer

from pipeline.manifest.problems import BadValue, Origin
from pipeline.manifest.sandbox import FENCES, MAX_PARTS, MAX_TEXT, Sandbox, text_of
from pipeline.text import did_you_mean

Context = Mapping[str, Any]
Scope = Mapping[str, Collection[str] | None]  # the names a template may use, and the only keys they have; None: any
ANY_NAMES: Scope = dict.fromkeys(("vars", "matrix", "row", "file", "job", "id", "variant"))
Ref = tuple[str, str | None, bool]  # a name, a key of it, and whether the key of that matrix value is meant
_STATEMENT = re.compile(
    r"\{%[-+]?\s*(if|elif|else|endif|for|endfor|set|endset|raw|endraw|filter|endfilter|with|endwith|"
    r"include|import|from|extends|block|endblock|macro|endmacro|call|endcall|do)\b"
)
_BRACE = re.compile(r"\{[%#{]")
_CLOSING = {"{{": "}}", "{#": "#}", "raw": "endraw"}
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
}
_NAMESPACES = ("vars", "row", "file", "matrix")
_ACCESSES: tuple[Any, ...] = (nodes.Getattr, nodes.Getitem)
_WHERE_NAMES_LIVE = {
    "row": "`row` needs `each: {csv: ...}` or another table",
    "file": "`file` needs `each: {files: ...}`",
    "matrix": "`matrix` needs a `matrix:` in the job",
}


class Template:
    """One text with its names resolved at `render`. `roots` are the names it uses, `refs` their fixed keys.

    `cells`: the columns of a text without conditions, filters and defaults: an empty cell leaves a gap in it.
    """

    __slots__ = ("_fill", "cells", "literal", "origin", "refs", "roots", "source")

    def __init__(self, source: str, origin: Origin | None, fill: Callable[[Context], str] | None) -> None:
        """`fill` None: the text is what it renders to."""
        self.source = source
        self.origin = origin
        self._fill = fill
        self.literal = source if fill is None else None
        self.roots: frozenset[str] = frozenset()
        self.refs: frozenset[tuple[str, str]] = frozenset()
        self.cells: tuple[str, ...] = ()

    def render(self, context: Context) -> str:
        """Return the text for one task. Raises BadValue."""
        if self._fill is None:
            return self.source
        try:
            return self._fill(context)
        except BadValue as bad:
            bad.origin = self.origin
            raise


def compile_template(sandbox: Sandbox, source: str, scope: Scope, *, origin: Origin | None = None) -> Template:
    """Return the template of `source`. BadValue when it is not one, or uses what is not in `scope`."""
    if "{{" not in source and not _STATEMENT.search(source) and not ("{#" in source and "#}" in source):
        return Template(source, origin, None)
    try:
        return _compile(sandbox, source, scope, origin)
    except (RecursionError, SyntaxError, MemoryError):  # limits of Jinja's parser and of Python's compiler
        bad = BadValue("the template is nested too deeply", "reduce the nesting")
    except BadValue as error:
        bad = error
    bad.origin, bad.line = origin, bad.line or 1
    raise bad


def _compile(sandbox: Sandbox, source: str, scope: Scope, origin: Origin | None) -> Template:
    if len(source) > MAX_TEXT:
        raise BadValue(f"the template has {len(source):,} characters, at most {MAX_TEXT:,}", "make it shorter")
    tree = _parse(sandbox, source)
    parts = _simple_parts(tree)
    if parts is None:
        roots = _roots(sandbox, tree)
    else:
        roots = frozenset(part[0] for part in parts if not isinstance(part, str))
    for name in sorted(roots.difference(scope)):
        line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), 1)
        raise _unknown_name(name, scope, line)
    template = Template(source, origin, _quick(parts) if parts is not None else _jinja(sandbox, tree))
    template.roots = roots
    template.cells = tuple(
        part[1] for part in parts or () if not isinstance(part, str) and part[0] == "row" and part[1]
    )
    template.refs = frozenset(_fixed_refs(tree, roots))
    for root, key in sorted(template.refs):
        known = scope[root]
        if known is not None and key not in known:
            instead = did_you_mean(key, sorted(known), "known: " + (", ".join(sorted(known)[:8]) or "none"))
            raise BadValue(f"{root} has no {key!r}", instead, needle=key)
    return template


def _parse(sandbox: Sandbox, source: str) -> nodes.Template:
    try:
        tree = sandbox.parse(_keep_lone_braces(source))
    except TemplateSyntaxError as error:
        raise BadValue(f"not a template: {error.message}", _syntax_advice(error), line=error.lineno) from None
    if not sandbox.budget.take_parts(sum(1 for _ in tree.find_all(nodes.Node))):
        what = f"the templates of this manifest have more than {MAX_PARTS:,} names, texts and operators"
        raise BadValue(what, "write one template, and its rows in a CSV or JSONL file")
    for node in tree.find_all(tuple(_REFUSED)):
        what = f"{{% {_REFUSED[type(node)]} %}} is not available"
        raise BadValue(what, "write the text out", line=node.lineno)
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise BadValue("recursive loops are not available", "write a plain loop", line=loop.lineno)
    for access in tree.find_all(_ACCESSES):
        key = _key_of(access)
        if key is not None and key.startswith("__"):
            what, instead = f"access to {key!r} is refused", "use the names of the manifest"
            raise BadValue(what, instead, line=access.lineno, needle=key)
    for name in tree.find_all(nodes.Name):
        if name.name == "self":  # Jinja's own object, which would print itself into a prompt
            raise BadValue("unknown name 'self' in the template", "remove it", line=name.lineno, needle="self")
    return tree


def _roots(sandbox: Sandbox, tree: nodes.Template) -> frozenset[str]:
    """Return the names the template takes from outside. BadValue for an unknown filter or test."""
    try:
        return frozenset(meta.find_undeclared_variables(tree)) - sandbox.globals.keys()
    except TemplateSyntaxError as error:
        known = "filters: " + ", ".join(sorted(sandbox.filters.keys() - {*FENCES}))
        raise BadValue(f"not a template: {error.message}", known, line=error.lineno) from None


def _keep_lone_braces(source: str) -> str:
    """Pass `{%` and `{#` that are not Jinja's through as text: no statement, or a note that never ends.

    What stands in `{{ }}`, in a note or between `raw` and `endraw` is left to Jinja.
    """
    last = {closing: source.rfind(closing) for closing in _CLOSING.values()}
    read_to = 0

    def keep(brace: re.Match[str]) -> str:
        nonlocal read_to
        opening, start = brace.group(), brace.start()
        if start < read_to:
            return opening
        statement = _STATEMENT.match(source, start)
        closing = _CLOSING.get(opening if statement is None else statement[1], "")
        if brace.end() <= last.get(closing, -1):
            read_to = source.index(closing, brace.end())
        is_jinja = statement is not None or start < read_to or opening == "{{"
        return opening if is_jinja else "{{ '" + opening + "' }}"

    return _BRACE.sub(keep, source)


def _syntax_advice(error: TemplateSyntaxError) -> str:
    if "unexpected end of template" in str(error.message) or "Unexpected end" in str(error.message):
        return "close what is open: }} or {% endif %} or {% endfor %}"
    return "text with {{ in it that is not a template: write {{ '{{' }}"


def _key_of(node: Any) -> str | None:
    """Return the key of `x.key` and `x["key"]`; None where it is worked out."""
    key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
    return key if isinstance(key, str) else None


def _unknown_name(name: str, names: Collection[str], line: int) -> BadValue:
    if name in _WHERE_NAMES_LIVE:
        return BadValue(f"{name!r} has no value here", _WHERE_NAMES_LIVE[name], line=line, needle=name)
    instead = did_you_mean(name, names, "known here: " + ", ".join(sorted(names)))
    return BadValue(f"unknown name {name!r} in the template", instead, line=line, needle=name)


def _fixed_refs(tree: nodes.Template, roots: frozenset[str]) -> set[tuple[str, str]]:
    """Collect `root.key` pairs that must exist; not those asked about by `is defined` or given a `default`."""
    optional: set[int] = set()
    for node in tree.find_all((nodes.Test, nodes.Filter)):
        if node.name in ("defined", "undefined", "default", "d"):
            optional.add(id(node.node))
    found = set()
    for access in tree.find_all(_ACCESSES):
        key, root = _key_of(access), access.node
        if isinstance(root, nodes.Name) and root.name in roots and key is not None and id(access) not in optional:
            found.add((root.name, key))
    return found


def _simple_parts(tree: nodes.Template) -> list[str | Ref] | None:
    """Return text and references in order when the template holds nothing else; else None."""
    parts: list[str | Ref] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            part = _simple_part(node)
            if part is None:
                return None
            parts.append(part)
    return parts


def _simple_part(node: nodes.Node) -> str | Ref | None:
    match node:
        case nodes.TemplateData(data=text):
            return str(text)
        case nodes.Const(value=str(text)):
            return text
        case nodes.Name(name=("job" | "id" | "variant") as root):
            return root, None, False
        case nodes.Getattr(node=nodes.Getattr(node=nodes.Name(name="matrix" as root), attr=key), attr="key"):
            return root, key, True
        case nodes.Getattr() | nodes.Getitem() if isinstance(node.node, nodes.Name) and node.node.name in _NAMESPACES:
            fixed = _key_of(node)
            return None if fixed is None else (node.node.name, fixed, False)
        case _:
            return None


def _quick(parts: list[str | Ref]) -> Callable[[Context], str]:
    """Return a renderer without Jinja: one `%` of a pattern made once."""
    pattern = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
    refs = tuple(part for part in parts if not isinstance(part, str))

    def render(context: Context) -> str:
        """Fill the pattern. BadValue for a key that is not there."""
        values = []
        for root, key, is_key in refs:
            names = context[root]
            if key is None:
                value = names
            elif key in names:
                value = names[key].key if is_key else names[key]
            else:
                what, _, instead = names.unknown(key).partition("; ")
                raise BadValue(what, instead, needle=key)
            values.append(value if value.__class__ is str else text_of(value))
        text = pattern % tuple(values)
        if len(text) > MAX_TEXT:
            raise BadValue(f"makes a text of more than {MAX_TEXT:,} characters", "make it shorter")
        return text

    return render


class _Fences(NodeTransformer):
    """Puts the sandbox's fences around what Jinja does not let an environment intercept.

    Loops pay for every turn by what stands in them, `~`, literals, slices and comparisons for what they go through, and
    blocks (`{% set x %}`) for the text they make.
    """

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - Jinja's own form
        cost = 10 + sum(_size(part) for part in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = _fence(node.iter, "steps", nodes.Const(cost))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - Jinja's own form
        self.generic_visit(node)
        return _fence(nodes.List(node.nodes, lineno=node.lineno), "joined")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802 - Jinja's own form
        self.generic_visit(node)
        node.expr = _fence(node.expr, "held")
        for operand in node.ops:
            operand.expr = _fence(operand.expr, "held")
        return node

    def visit_List(self, node: Any) -> nodes.Filter:  # noqa: N802 - Jinja's own form
        self.generic_visit(node)
        return _fence(node, "held")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802 - Jinja's own form
        self.generic_visit(node)
        return _fence(node, "held") if isinstance(node.arg, nodes.Slice) else node

    visit_Dict = visit_List  # noqa: N815 - Jinja's own form

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802 - Jinja's own form
        self.generic_visit(node)
        return _fence(node, "held") if node.ctx == "load" else node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.AssignBlock:  # noqa: N802 - Jinja's own form
        self.generic_visit(node)
        node.filter = _fence(node.filter, "string")
        return node


def _fence(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    """Return `node|name(arguments)`; node None: what a block makes."""
    return nodes.Filter(node, name, [*arguments], [], None, None, lineno=node.lineno if node is not None else 1)


def _size(node: nodes.Node) -> int:
    """Return what a node of a loop's body costs in one turn: a step, or the text it writes."""
    text = node.data if isinstance(node, nodes.TemplateData) else getattr(node, "value", None)
    return 1 + (len(text) if isinstance(text, str) else 0)


def _jinja(sandbox: Sandbox, tree: nodes.Template) -> Callable[[Context], str]:
    """Return a renderer that runs in the sandbox. Trouble of any kind becomes BadValue with its line."""
    sandbox.budget.reset()
    compiled = sandbox.from_string(_Fences().visit(tree))

    def render(context: Context) -> str:
        """Run the code Jinja wrote. BadValue for whatever it raises."""
        sandbox.budget.reset()
        pieces: list[str] = []
        length = 0
        try:
            for piece in compiled.root_render_func(compiled.new_context(dict(context))):
                length += len(piece)
                sandbox.budget.text(length - len(piece) if length <= MAX_TEXT else length)
                pieces.append(piece)
        except Exception as error:  # the person who wrote the expression sees it, as a Problem with its line
            raise _trouble(error, compiled) from None
        return "".join(pieces)

    return render


def _trouble(error: Exception, compiled: Any) -> BadValue:
    line, step = 1, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == compiled.filename or step.tb_frame.f_code.co_filename == "<template>":
            line = compiled.get_corresponding_lineno(step.tb_lineno)
        step = step.tb_next
    what, _, instead = str(error).partition("; ")
    if isinstance(error, SecurityError | UndefinedError):
        quoted = re.search(r"'([^']+)'", what)
        return BadValue(what, instead or "use the names of the manifest", line=line, needle=quoted and quoted[1])
    return BadValue(f"the expression fails: {type(error).__name__}: {error}", "fix the expression", line=line)
