//! Context data in message headers: the headers whose names begin with a prefix and a dot.

use nameko::amqp::Table;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString};

use crate::convert;

/// Returns context data from message headers, as a new dict. Headers without the prefix keep their
/// names.
#[pyfunction]
pub(crate) fn decode_from_headers<'py>(
    headers: &Bound<'py, PyMapping>,
    prefix: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let py = headers.py();
    let data = PyDict::new(py);
    for item in headers.items()? {
        let (name, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item.extract()?;
        match name.cast::<PyString>() {
            Ok(name) => data.set_item(key(py, name.to_str()?, prefix), value)?,
            Err(_) => data.set_item(name, value)?,
        }
    }
    Ok(data)
}

/// Like [`decode_from_headers`], for headers that Python has not seen.
pub(crate) fn from_table<'py>(
    py: Python<'py>,
    headers: &Table,
    prefix: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let data = PyDict::new(py);
    for (name, value) in headers.iter() {
        data.set_item(key(py, name, prefix), convert::to_python(py, value)?)?;
    }
    Ok(data)
}

/// Returns the key of a header.
fn key<'py>(py: Python<'py>, name: &str, prefix: &str) -> Bound<'py, PyString> {
    let unprefixed = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('.'));
    match unprefixed {
        // In every request of a Nameko client: saves an allocation and a hash.
        Some("call_id_stack") => intern!(py, "call_id_stack").clone(),
        Some(key) => PyString::new(py, key),
        None => PyString::new(py, name),
    }
}
