//! Conversion between Python objects and AMQP types, with the Python types of py-amqp.

use std::{borrow::Cow, iter};

use bytes::Bytes;
use nameko::amqp::{Binding, Exchange, ExchangeKind, Properties, Queue, Table, Text, Value};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

use crate::death_history;

/// The maximum depth of lists and dicts in headers, which also bounds a list that contains itself.
const MAX_NESTING_DEPTH: usize = 64;

/// The size from which on a body is shared with its Python object instead of copied.
const MIN_SHARED_BODY_BYTES: usize = 64 * 1024;

/// Converts a body.
pub(crate) fn body(bytes: PyBackedBytes) -> Bytes {
    if bytes.len() < MIN_SHARED_BODY_BYTES {
        Bytes::copy_from_slice(&bytes)
    } else {
        Bytes::from_owner(bytes)
    }
}

/// Converts a short text, without a copy of common ones.
pub(crate) fn text(text: &str) -> Text {
    const COMMON: [&str; 3] = ["application/json", "utf-8", "binary"];
    match COMMON.iter().find(|common| **common == text) {
        Some(common) => Cow::Borrowed(common),
        None => Cow::Owned(text.to_owned()),
    }
}

/// Converts message properties from a dict with kombu's names. None counts as absent; other names
/// are ignored, as in kombu.
///
/// # Errors
///
/// TypeError or ValueError with the name of a property that AMQP cannot represent.
pub(crate) fn properties(dict: &Bound<'_, PyDict>) -> PyResult<Properties> {
    let mut properties = Properties::default();
    for (name, value) in dict {
        if value.is_none() {
            continue;
        }
        let Ok(name) = name.cast::<PyString>() else {
            continue;
        };
        let name = name.to_string();
        let set = match name.as_str() {
            "content_type" => set_text(&mut properties.content_type, &value),
            "content_encoding" => set_text(&mut properties.content_encoding, &value),
            "correlation_id" => set_text(&mut properties.correlation_id, &value),
            "reply_to" => set_text(&mut properties.reply_to, &value),
            "message_id" => set_text(&mut properties.message_id, &value),
            "type" => set_text(&mut properties.type_, &value),
            "user_id" => set_text(&mut properties.user_id, &value),
            "app_id" => set_text(&mut properties.app_id, &value),
            "cluster_id" => set_text(&mut properties.cluster_id, &value),
            "application_headers" | "headers" => table(&value, 0).map(|mut headers| {
                death_history::keep(&mut headers);
                properties.headers = headers;
            }),
            "delivery_mode" => value
                .extract()
                .map(|mode| properties.delivery_mode = Some(mode)),
            "priority" => value
                .extract()
                .map(|priority| properties.priority = Some(priority)),
            "expiration" => expiration(&value).map(|text| properties.expiration = Some(text)),
            "timestamp" => timestamp(&value).map(|seconds| properties.timestamp = Some(seconds)),
            _ => Ok(()),
        };
        set.map_err(|error| in_context(dict.py(), &format!("message property `{name}`"), error))?;
    }
    Ok(properties)
}

/// Converts message properties to kombu's dict: those present, and always `headers` as
/// `application_headers`.
pub(crate) fn properties_dict<'py>(
    py: Python<'py>,
    properties: &Properties,
    headers: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "application_headers"), headers)?;
    let texts = [
        (intern!(py, "content_type"), &properties.content_type),
        (
            intern!(py, "content_encoding"),
            &properties.content_encoding,
        ),
        (intern!(py, "correlation_id"), &properties.correlation_id),
        (intern!(py, "reply_to"), &properties.reply_to),
        (intern!(py, "expiration"), &properties.expiration),
        (intern!(py, "message_id"), &properties.message_id),
        (intern!(py, "type"), &properties.type_),
        (intern!(py, "user_id"), &properties.user_id),
        (intern!(py, "app_id"), &properties.app_id),
        (intern!(py, "cluster_id"), &properties.cluster_id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            dict.set_item(name, text.as_ref())?;
        }
    }
    if let Some(mode) = properties.delivery_mode {
        dict.set_item(intern!(py, "delivery_mode"), mode)?;
    }
    if let Some(priority) = properties.priority {
        dict.set_item(intern!(py, "priority"), priority)?;
    }
    if let Some(seconds) = properties.timestamp {
        dict.set_item(intern!(py, "timestamp"), seconds)?;
    }
    Ok(dict)
}

/// Converts headers to a dict.
pub(crate) fn table_dict<'py>(py: Python<'py>, table: &Table) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in table.iter() {
        dict.set_item(name, to_python(py, value)?)?;
    }
    Ok(dict)
}

/// Converts a queue from its dict.
///
/// # Errors
///
/// TypeError if a value has the wrong type.
pub(crate) fn queue(dict: &Bound<'_, PyDict>) -> PyResult<Queue> {
    let mut queue = Queue::new(String::new());
    get(dict, "name", &mut queue.name)?;
    get(dict, "durable", &mut queue.durable)?;
    get(dict, "exclusive", &mut queue.exclusive)?;
    get(dict, "auto_delete", &mut queue.auto_delete)?;
    get(dict, "passive", &mut queue.passive)?;
    get(dict, "no_declare", &mut queue.no_declare)?;
    queue.arguments = arguments(dict)?;
    let mut bindings: Vec<Bound<'_, PyDict>> = Vec::new();
    get(dict, "bindings", &mut bindings)?;
    for binding in &bindings {
        let mut exchange_dict = PyDict::new(dict.py());
        get(binding, "exchange", &mut exchange_dict)?;
        let mut routing_key = String::new();
        get(binding, "routing_key", &mut routing_key)?;
        let exchange = exchange(&exchange_dict)?;
        queue.bindings.push(Binding {
            exchange,
            routing_key,
            arguments: arguments(binding)?,
        });
    }
    Ok(queue)
}

/// Converts an exchange from its dict.
///
/// # Errors
///
/// TypeError if a value has the wrong type.
pub(crate) fn exchange(dict: &Bound<'_, PyDict>) -> PyResult<Exchange> {
    let (mut name, mut kind) = (String::new(), "direct".to_owned());
    get(dict, "name", &mut name)?;
    get(dict, "type", &mut kind)?;
    let mut exchange = Exchange::new(name, ExchangeKind::from(kind.as_str()));
    get(dict, "durable", &mut exchange.durable)?;
    get(dict, "auto_delete", &mut exchange.auto_delete)?;
    get(dict, "internal", &mut exchange.internal)?;
    get(dict, "passive", &mut exchange.passive)?;
    get(dict, "no_declare", &mut exchange.no_declare)?;
    exchange.arguments = arguments(dict)?;
    Ok(exchange)
}

fn get<'py, T>(dict: &Bound<'py, PyDict>, name: &str, slot: &mut T) -> PyResult<()>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    match dict.get_item(name)? {
        Some(value) if !value.is_none() => {
            let extracted = value.extract::<T>().map_err(Into::<PyErr>::into);
            *slot =
                extracted.map_err(|error| in_context(dict.py(), &format!("`{name}`"), error))?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn arguments(dict: &Bound<'_, PyDict>) -> PyResult<Table> {
    match dict.get_item("arguments")? {
        Some(value) if !value.is_none() => {
            table(&value, 0).map_err(|error| in_context(dict.py(), "`arguments`", error))
        }
        _ => Ok(Table::new()),
    }
}

fn set_text(slot: &mut Option<Text>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let value = value.cast::<PyString>()?;
    *slot = Some(text(&value.to_cow()?));
    Ok(())
}

/// Converts an expiration to milliseconds as text. A number is in seconds, as in kombu.
fn expiration(value: &Bound<'_, PyAny>) -> PyResult<Text> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Cow::Owned(text.to_cow()?.into_owned()));
    }
    let milliseconds = value.extract::<f64>()? * 1000.0;
    if milliseconds >= 0.0 && milliseconds.is_finite() {
        Ok(Cow::Owned(format!("{:.0}", milliseconds.trunc())))
    } else {
        Err(PyValueError::new_err(
            "must be a number of seconds that is not negative",
        ))
    }
}

fn timestamp(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(seconds) = value.extract::<u64>() {
        return Ok(seconds);
    }
    if let Ok(seconds) = value.extract::<i64>() {
        return Ok(seconds.cast_unsigned());
    }
    if value.is_instance(&value.py().import("datetime")?.getattr("datetime")?)? {
        return seconds_of(value);
    }
    let seconds = value.extract::<f64>()?;
    if seconds.is_finite() {
        // Truncates as `int()` does; the cast saturates.
        Ok((seconds as i64).cast_unsigned())
    } else {
        Err(PyValueError::new_err("must be a finite number of seconds"))
    }
}

fn table(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Table> {
    let dict = match value.cast::<PyDict>() {
        Ok(dict) => dict.clone(),
        Err(_) => {
            let dict = PyDict::new(value.py());
            dict.update(value.cast()?)?;
            dict
        }
    };
    let mut entries = Vec::with_capacity(dict.len());
    for (name, value) in &dict {
        let name = name
            .cast::<PyString>()
            .map_err(|_| PyTypeError::new_err(format!("a name must be a str, but {name} is not")))?
            .to_cow()?
            .into_owned();
        let value = from_python(&value, depth)
            .map_err(|error| in_context(dict.py(), &format!("`{name}`"), error))?;
        entries.push((name, value));
    }
    Ok(entries.into_iter().collect())
}

fn from_python(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth > MAX_NESTING_DEPTH {
        return Err(PyValueError::new_err(format!(
            "nested more than {MAX_NESTING_DEPTH} deep"
        )));
    }
    // `bool` is a subclass of `int` in Python, so it comes first.
    if let Ok(text) = value.cast::<PyString>() {
        Ok(Value::String(text.to_cow()?.into_owned()))
    } else if let Ok(truth) = value.cast::<PyBool>() {
        Ok(Value::Bool(truth.is_true()))
    } else if value.is_instance_of::<PyInt>() {
        let number = value.extract();
        number
            .map(Value::Int)
            .map_err(|_| PyValueError::new_err("an integer of more than 64 bits"))
    } else if let Ok(number) = value.cast::<PyFloat>() {
        let number = number.value();
        if !number.is_finite() {
            return Err(PyValueError::new_err(format!(
                "{number} is no finite number, and brokers refuse it"
            )));
        }
        Ok(Value::Double(number))
    } else if value.is_none() {
        Ok(Value::Null)
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        Ok(Value::Bytes(Bytes::copy_from_slice(bytes.as_bytes())))
    } else if let Ok(bytes) = value.cast::<PyByteArray>() {
        Ok(Value::Bytes(bytes.to_vec().into()))
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| from_python(&item?, depth + 1));
        Ok(Value::List(items.collect::<PyResult<_>>()?))
    } else if value.is_instance_of::<PyDict>() {
        Ok(Value::Table(table(value, depth + 1)?))
    } else {
        from_rare(value)
    }
}

/// Converts datetime and Decimal.
fn from_rare(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = value.py();
    if value.is_instance(&py.import("datetime")?.getattr("datetime")?)? {
        return Ok(Value::Timestamp(seconds_of(value)?));
    }
    if value.is_instance(&py.import("decimal")?.getattr("Decimal")?)? {
        let unfit = || {
            PyValueError::new_err(
                "AMQP's decimals have 31 bits and at most 255 digits after the point",
            )
        };
        // Not by arithmetic, which rounds to the precision of the decimal context. The exponent of
        // NaN and infinity is a string.
        let parts = value.call_method0("as_tuple")?.extract();
        let (sign, digits, exponent): (u8, Vec<u8>, i64) = parts.map_err(|_| unfit())?;
        let scale = u8::try_from((-exponent).max(0)).map_err(|_| unfit())?;
        let zeros = usize::try_from(exponent.clamp(0, 20)).unwrap_or_default();
        let digits = digits.into_iter().chain(iter::repeat_n(0, zeros));
        let unsigned = digits.map(i64::from).try_fold(0_i64, |number, digit| {
            number
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(digit))
        });
        let signed = unsigned.map(|number| if sign == 0 { number } else { -number });
        return Ok(Value::Decimal {
            scale,
            value: signed
                .and_then(|number| i32::try_from(number).ok())
                .ok_or_else(unfit)?,
        });
    }
    Err(PyTypeError::new_err(format!(
        "AMQP headers carry str, int, float, bool, None, bytes, list, dict, datetime and Decimal, not {}",
        value.get_type().name()?
    )))
}

/// Seconds since 1970, as two's complement if negative: the form that Java sends.
fn seconds_of(datetime: &Bound<'_, PyAny>) -> PyResult<u64> {
    let seconds = datetime
        .py()
        .import("calendar")?
        .call_method1("timegm", (datetime.call_method0("utctimetuple")?,))?;
    Ok(seconds.extract::<i64>()?.cast_unsigned())
}

pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(truth) => PyBool::new(py, *truth).to_owned().into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Double(number) => PyFloat::new(py, *number).into_any(),
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Timestamp(seconds) => naive_utc(py, *seconds)?,
        Value::Decimal { scale, value } => {
            // From a string, which the precision of the decimal context does not round.
            let text = format!("{value}e-{scale}");
            py.import("decimal")?.getattr("Decimal")?.call1((text,))?
        }
        Value::List(items) => {
            let items = items.iter().map(|item| to_python(py, item));
            PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Value::Table(table) => table_dict(py, table)?.into_any(),
    })
}

/// Converts a timestamp to a naive datetime in UTC, as py-amqp does; to the number if datetime
/// cannot represent it. Times before 1970 are negative, as Java sends them.
fn naive_utc(py: Python<'_>, seconds: u64) -> PyResult<Bound<'_, PyAny>> {
    let seconds = seconds.cast_signed();
    let datetime = py.import("datetime")?;
    let utc = datetime.getattr("timezone")?.getattr("utc")?;
    match datetime
        .getattr("datetime")?
        .call_method1("fromtimestamp", (seconds, utc))
    {
        Ok(moment) => {
            let naive = PyDict::new(py);
            naive.set_item("tzinfo", py.None())?;
            moment.call_method("replace", (), Some(&naive))
        }
        Err(_) => Ok(seconds.into_pyobject(py)?.into_any()),
    }
}

/// Returns an error with the place prepended to its text: a TypeError, ValueError or OverflowError.
///
/// Other types, such as UnicodeEncodeError, cannot be created from a text.
fn in_context(py: Python<'_>, place: &str, error: PyErr) -> PyErr {
    let text = format!("{place}: {}", error.value(py));
    if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(text)
    } else if error.is_instance_of::<PyOverflowError>(py) {
        PyOverflowError::new_err(text)
    } else {
        PyValueError::new_err(text)
    }
}
