//! Rules for the signatures of entrypoints and of a client's methods.

use syn::{FnArg, Pat, Receiver, Signature, Type};

use crate::errors::Errors;

/// Error messages of the rules; that of a missing `async` follows "write `async fn NAME`: ".
pub(crate) struct Messages {
    pub(crate) not_async: &'static str,
    pub(crate) is_unsafe: &'static str,
    pub(crate) has_abi: &'static str,
    pub(crate) is_generic: &'static str,
    pub(crate) receiver: &'static str,
}

/// Checks a signature, except for its arguments and return type: it is `async`, takes `&self`, and
/// is neither `unsafe`, `extern` nor generic.
pub(crate) fn check(sig: &Signature, messages: &Messages, errors: &mut Errors) {
    if sig.asyncness.is_none() {
        errors.add(
            sig.fn_token,
            format!("write `async fn {}`: {}", sig.ident, messages.not_async),
        );
    }
    if let Some(unsafety) = &sig.unsafety {
        errors.add(unsafety, messages.is_unsafe);
    }
    if let Some(abi) = &sig.abi {
        errors.add(abi, messages.has_abi);
    }
    if !sig.generics.params.is_empty() {
        errors.add(&sig.generics, messages.is_generic);
    }
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) if is_shared_self(receiver) => {}
        Some(FnArg::Receiver(receiver)) => errors.add(receiver, messages.receiver),
        _ => errors.add(&sig.ident, messages.receiver),
    }
}

/// Returns whether the receiver is `&self` or `self: &Self`.
fn is_shared_self(receiver: &Receiver) -> bool {
    match &*receiver.ty {
        Type::Reference(ty) => {
            let is_self = matches!(&*ty.elem, Type::Path(path) if path.path.is_ident("Self"));
            is_self && ty.mutability.is_none() && ty.lifetime.is_none()
        }
        _ => false,
    }
}

/// Returns whether the pattern is `self`, as in `self: &Self`.
pub(crate) fn is_self(pat: &Pat) -> bool {
    matches!(pat, Pat::Ident(pat) if pat.ident == "self")
}
