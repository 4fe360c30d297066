//! The position of another thread, and raising an exception in it, where that is safe.
//!
//! Python raises it at its next check: after a call, at the start of a function, at the end of a
//! loop iteration. Between `lock.acquire()` and the `try` that follows, the lock would be held
//! forever. So the position of the thread is inspected first, without releasing the GIL in between.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

/// Names in a function that may hold a lock outside of a `with`.
const LOCKING_NAMES: &[&str] = &[
    "acquire",
    "release",
    "__enter__",
    "__exit__",
    "_acquireLock",
    "_releaseLock",
    "_acquire_restore",
    "_release_save",
];

/// Modules without interrupts, submodules included. In `contextlib`, the `try` of a generator's
/// `__enter__` does not leave the entered block; ours maintain invariants.
const UNINTERRUPTIBLE_MODULES: &[&str] = &[
    "contextlib",
    "nameko.bridge",
    "nameko.containers",
    "nameko.layers",
    "nameko.loop",
    "nameko.utils",
    "nameko.workers",
];

/// Modules with interrupts only inside a `try` or a `with`, submodules included.
const TRY_ONLY_MODULES: &[&str] = &["importlib", "threading"];

/// Raises `exc_type` in the thread `ident`, unless a lock could stay behind there, or the thread is
/// in a finalizer, where exceptions are dropped. Returns whether it will be raised, or the thread
/// is handling it.
#[pyfunction]
pub(crate) fn interrupt(py: Python<'_>, ident: u64, exc_type: &Bound<'_, PyAny>) -> PyResult<bool> {
    let tools = Tools::get(py)?;
    let arguments = (
        tools.unsigned_long.call1(py, (ident,))?,
        tools.py_object.call1(py, (exc_type,))?,
    )
        .into_pyobject(py)?;
    // No Python function may run from here on: it could release the GIL.
    tools.without_collections(py, || {
        if tools.handles(py, ident, exc_type)? {
            return Ok(true);
        }
        let Some(frame) = tools.frame(py, ident)? else {
            return Ok(false);
        };
        if !is_safe_to_interrupt(py, &frame, tools)? {
            return Ok(false);
        }
        tools.set_async_exc.call1(py, arguments)?;
        Ok(true)
    })
}

/// Returns the innermost frame of the thread `ident`; None if no such thread runs.
#[pyfunction]
pub(crate) fn current_frame(py: Python<'_>, ident: u64) -> PyResult<Option<Bound<'_, PyAny>>> {
    let tools = Tools::get(py)?;
    tools.without_collections(py, || tools.frame(py, ident))
}

struct Tools {
    current_exceptions: Py<PyAny>,
    current_frames: Py<PyAny>,
    gc_is_enabled: Py<PyAny>,
    gc_disable: Py<PyAny>,
    gc_enable: Py<PyAny>,
    set_async_exc: Py<PyAny>,
    unsigned_long: Py<PyAny>,
    py_object: Py<PyAny>,
    /// The opcode at the start of an exception handler; none before Python 3.11.
    push_exc_info: Option<u8>,
}

impl Tools {
    fn get(py: Python<'_>) -> PyResult<&'static Tools> {
        static TOOLS: PyOnceLock<Tools> = PyOnceLock::new();
        TOOLS.get_or_try_init(py, || Tools::new(py))
    }

    fn new(py: Python<'_>) -> PyResult<Self> {
        let ctypes = py.import("ctypes")?;
        let gc = py.import("gc")?;
        let sys = py.import("sys")?;
        Ok(Tools {
            current_exceptions: sys.getattr("_current_exceptions")?.unbind(),
            current_frames: sys.getattr("_current_frames")?.unbind(),
            gc_is_enabled: gc.getattr("isenabled")?.unbind(),
            gc_disable: gc.getattr("disable")?.unbind(),
            gc_enable: gc.getattr("enable")?.unbind(),
            set_async_exc: ctypes
                .getattr("pythonapi")?
                .getattr("PyThreadState_SetAsyncExc")?
                .unbind(),
            unsigned_long: ctypes.getattr("c_ulong")?.unbind(),
            py_object: ctypes.getattr("py_object")?.unbind(),
            push_exc_info: py
                .import("opcode")?
                .getattr("opmap")?
                .get_item("PUSH_EXC_INFO")
                .and_then(|number| number.extract())
                .ok(),
        })
    }

    /// Calls `f` with the garbage collector disabled: a collection runs finalizers, which may
    /// release the GIL. Within `sys._current_frames` and `sys._current_exceptions` that is a
    /// deadlock, since they hold a lock of the interpreter that the start of any thread needs
    /// (CPython issue 106883).
    fn without_collections<T>(
        &self,
        py: Python<'_>,
        f: impl FnOnce() -> PyResult<T>,
    ) -> PyResult<T> {
        if !self.gc_is_enabled.call0(py)?.is_truthy(py)? {
            return f();
        }
        self.gc_disable.call0(py)?;
        let result = f();
        self.gc_enable.call0(py)?;
        result
    }

    /// Returns the innermost frame of the thread `ident`, or None.
    fn frame<'py>(&self, py: Python<'py>, ident: u64) -> PyResult<Option<Bound<'py, PyAny>>> {
        let frames = self.current_frames.bind(py).call0()?;
        frames.cast::<PyDict>()?.get_item(ident)
    }

    /// Returns whether the thread `ident` is in an `except` or `finally` block for `exc_type`, or
    /// for an exception that was raised in such a block.
    fn handles(&self, py: Python<'_>, ident: u64, exc_type: &Bound<'_, PyAny>) -> PyResult<bool> {
        let handled = self.current_exceptions.bind(py).call0()?;
        let mut handled = handled.cast::<PyDict>()?.get_item(ident)?;
        // Before Python 3.12 a tuple of type, value and traceback.
        if let Some(Ok(info)) = handled.as_ref().map(|handled| handled.cast::<PyTuple>()) {
            handled = Some(info.get_item(1)?);
        }
        while let Some(exc) = handled.filter(|exc| !exc.is_none()) {
            if exc.is_instance(exc_type)? {
                return Ok(true);
            }
            handled = Some(exc.getattr(intern!(py, "__context__"))?);
        }
        Ok(false)
    }
}

/// Returns whether an interrupt in this frame, a thread's innermost one, leaves nothing held.
fn is_safe_to_interrupt(py: Python<'_>, frame: &Bound<'_, PyAny>, tools: &Tools) -> PyResult<bool> {
    let code = frame.getattr(intern!(py, "f_code"))?;
    let function: PyBackedStr = code.getattr(intern!(py, "co_name"))?.extract()?;
    if function == "__del__" || is_in(py, frame, UNINTERRUPTIBLE_MODULES)? {
        return Ok(false);
    }
    if in_try(py, frame, &code, tools)? {
        return Ok(true);
    }
    if LOCKING_NAMES.contains(&&*function) || is_in(py, frame, TRY_ONLY_MODULES)? {
        return Ok(false);
    }
    for name in code.getattr(intern!(py, "co_names"))?.cast::<PyTuple>()? {
        let name: PyBackedStr = name.extract()?;
        if LOCKING_NAMES.contains(&&*name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether the frame belongs to one of the modules or their submodules.
fn is_in(py: Python<'_>, frame: &Bound<'_, PyAny>, modules: &[&str]) -> PyResult<bool> {
    let globals = frame.getattr(intern!(py, "f_globals"))?;
    let Some(name) = globals
        .cast::<PyDict>()?
        .get_item(intern!(py, "__name__"))?
    else {
        return Ok(false);
    };
    let Ok(name) = name.extract::<PyBackedStr>() else {
        return Ok(false);
    };
    Ok(modules.iter().any(|module| {
        name.strip_prefix(module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }))
}

/// Returns whether the frame is in the body of a `try` or a `with`; false if that is unknown.
fn in_try(
    py: Python<'_>,
    frame: &Bound<'_, PyAny>,
    code: &Bound<'_, PyAny>,
    tools: &Tools,
) -> PyResult<bool> {
    let Some(push_exc_info) = tools.push_exc_info else {
        return Ok(false);
    };
    let table = code.getattr(intern!(py, "co_exceptiontable"))?;
    let at: isize = frame.getattr(intern!(py, "f_lasti"))?.extract()?;
    let Some(handler) = usize::try_from(at)
        .ok()
        .and_then(|at| handler_at(table.cast::<PyBytes>().ok()?.as_bytes(), at))
    else {
        return Ok(false);
    };
    // Other entries clean up after a handler.
    let instructions = code.getattr(intern!(py, "co_code"))?;
    let first = instructions.cast::<PyBytes>()?.as_bytes().get(handler);
    Ok(first == Some(&push_exc_info))
}

/// Returns the offset of the handler for an exception at byte `at`.
///
/// CPython's exception table has entries of four numbers: start, length and handler in units of two
/// bytes, and depth. A byte holds six bits; 64 marks a continuation, 128 the start of an entry.
/// Source: `InternalDocs/exception_handling.md` of CPython.
fn handler_at(table: &[u8], at: usize) -> Option<usize> {
    let mut bytes = table.iter();
    let mut number = || {
        let mut value = 0_usize;
        loop {
            let byte = *bytes.next()?;
            value = value.checked_mul(64)?.checked_add(usize::from(byte & 63))?;
            if byte & 64 == 0 {
                return Some(value);
            }
        }
    };
    loop {
        let (start, length, handler, _depth) = (number()?, number()?, number()?, number()?);
        let unit = at / 2;
        if unit >= start && unit - start < length {
            return handler.checked_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_handler_of_a_position() {
        // Units 1 to 2 are handled at unit 10, units 70 to 79 at unit 100.
        let table = [129, 2, 10, 0, 128 | 64 | 1, 6, 10, 64 | 1, 36, 1];
        let at = |unit: usize| handler_at(&table, unit * 2);
        assert_eq!(
            [at(0), at(1), at(2), at(3)],
            [None, Some(20), Some(20), None]
        );
        assert_eq!(
            [at(69), at(70), at(79), at(80)],
            [None, Some(200), Some(200), None]
        );
    }

    #[test]
    fn a_truncated_table_has_no_handler() {
        assert_eq!(handler_at(&[], 0), None);
        assert_eq!(handler_at(&[128, 1, 64], 0), None);
        assert_eq!(handler_at(&[255; 40], 0), None);
    }
}
