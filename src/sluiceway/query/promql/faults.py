"""What can be wrong with a query, as faults of the tenant with stable ids."""

from sluiceway.errors import TenantFault


def line_and_column(text: str, position: int) -> str:
    """`line:column`, columns counted in UTF-8 bytes from 1, as PromQL users know them."""
    position = max(0, min(position, len(text)))
    line_start = text.rfind("\n", 0, position) + 1
    line = text.count("\n", 0, position) + 1
    column = len(text[line_start:position].encode("utf-8", "surrogateescape")) + 1
    return f"{line}:{column}"


class ParseFault(TenantFault):
    """The text is not PromQL, or its types do not fit: 400 bad_data."""

    def __init__(self, text: str, position: int, message: str) -> None:
        where = line_and_column(text, position)
        super().__init__(400, "sluiceway-query-syntax", f"{where}: parse error: {message}")


class InvalidQuery(TenantFault):
    """Sound PromQL that cannot be asked in this way: 400 bad_data."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "sluiceway-query-invalid", message)


class QueryTooLarge(TenantFault):
    """The text passes a limit of the parser: 400 bad_data."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "sluiceway-query-text-limit", message)


class ExecutionFault(TenantFault):
    """The query cannot be answered over this data: 422 execution."""

    def __init__(self, message: str, id: str = "sluiceway-query-execution") -> None:
        super().__init__(422, id, message)
