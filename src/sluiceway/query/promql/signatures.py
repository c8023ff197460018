"""Every PromQL function and aggregation: names, argument types, and whether it is experimental."""

from sluiceway.query.promql.syntax import MATRIX, SCALAR, STRING, VECTOR, Signature, ValueType

_PLAIN_AGGREGATIONS = ("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar")
PARAMETER_AGGREGATIONS = frozenset(
    ("topk", "bottomk", "count_values", "quantile", "limitk", "limit_ratio")
)
AGGREGATIONS = PARAMETER_AGGREGATIONS.union(_PLAIN_AGGREGATIONS)

FUNCTIONS: dict[str, Signature] = {}


def _add(
    names: str,
    arguments: tuple[ValueType, ...],
    returns: ValueType = VECTOR,
    variadic: int = 0,
    experimental: bool = False,
) -> None:
    for name in names.split():
        FUNCTIONS[name] = Signature(name, arguments, variadic, returns, experimental)


_add("abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor", (VECTOR,))
_add("histogram_avg histogram_count histogram_sum histogram_stddev histogram_stdvar", (VECTOR,))
_add("ln log10 log2 rad sgn sin sinh sort sort_desc sqrt tan tanh timestamp", (VECTOR,))
_add("start_timestamp", (VECTOR,), experimental=True)
_add(
    "absent_over_time avg_over_time changes count_over_time delta deriv idelta increase irate"
    " last_over_time max_over_time min_over_time present_over_time rate resets stddev_over_time"
    " stdvar_over_time sum_over_time",
    (MATRIX,),
)
_add(
    "first_over_time mad_over_time ts_of_first_over_time ts_of_last_over_time"
    " ts_of_max_over_time ts_of_min_over_time",
    (MATRIX,),
    experimental=True,
)
_add("quantile_over_time", (SCALAR, MATRIX))
_add("predict_linear", (MATRIX, SCALAR))
_add("double_exponential_smoothing holt_winters", (MATRIX, SCALAR, SCALAR), experimental=True)
_add("clamp", (VECTOR, SCALAR, SCALAR))
_add("clamp_max clamp_min", (VECTOR, SCALAR))
_add("round", (VECTOR, SCALAR), variadic=1)
_add(
    "day_of_month day_of_week day_of_year days_in_month hour minute month year",
    (VECTOR,),
    variadic=1,
)
_add("histogram_quantile", (SCALAR, VECTOR))
_add("histogram_quantiles", (VECTOR, STRING, SCALAR), variadic=-1, experimental=True)
_add("histogram_fraction", (SCALAR, SCALAR, VECTOR))
_add("label_replace", (VECTOR, STRING, STRING, STRING, STRING))
_add("label_join", (VECTOR, STRING, STRING, STRING), variadic=-1)
_add("sort_by_label sort_by_label_desc", (VECTOR, STRING), variadic=-1, experimental=True)
_add("info", (VECTOR, VECTOR), variadic=1, experimental=True)
_add("scalar", (VECTOR,), SCALAR)
_add("vector", (SCALAR,))
_add("pi time", (), SCALAR)
_add("start end step range", (), SCALAR, experimental=True)
_add("min_of max_of", (SCALAR, SCALAR), SCALAR, experimental=True)

# A function of a range vector, and which of its arguments that is.
RANGE_ARGUMENT = {
    name: signature.arguments.index(MATRIX)
    for name, signature in FUNCTIONS.items()
    if MATRIX in signature.arguments
}

# Answers that hang on the evaluation time even where every argument is fixed by `@`.
TIME_DEPENDENT = frozenset(
    {"time", "timestamp", "predict_linear", "day_of_month", "day_of_week", "day_of_year"}
    | {"days_in_month", "hour", "minute", "month", "year"}
)
