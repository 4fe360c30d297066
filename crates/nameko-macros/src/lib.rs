//! Attribute and derive macros of the [`nameko`](https://docs.rs/nameko) crate.
//!
//! Use them through `nameko::prelude`. They are documented at their re-exports in `nameko`, such as
//! [`nameko::service`](https://docs.rs/nameko/latest/nameko/attr.service.html), since their
//! examples need that crate.
//!
//! The macros parse, check and generate calls of public items of `nameko`. They contain no
//! behaviour: the same service can be written without them. All errors of an item are reported at
//! once, each on the tokens that cause it.

#![allow(missing_docs, reason = "documented at the re-exports in nameko")]

mod bodies;
mod constants;
#[cfg(feature = "cron")]
mod cron_expression;
mod dependencies;
mod entrypoint;
mod errors;
mod exception;
mod literals;
mod markers;
mod owned;
mod rpc_client;
mod service;
mod signature;
mod spans;

use proc_macro::TokenStream;

#[proc_macro_derive(Dependencies, attributes(dependency, dependencies))]
pub fn dependencies(item: TokenStream) -> TokenStream {
    dependencies::expand(item.into()).into()
}

#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn rpc(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("rpc", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn event_handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("event_handler", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn consume(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("consume", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn timer(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("timer", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn cron(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("cron", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn http(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("http", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn websocket_rpc(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("websocket_rpc", &arguments.into(), &item.into()).into()
}

#[proc_macro_attribute]
pub fn entrypoint(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("entrypoint", &arguments.into(), &item.into()).into()
}

#[proc_macro_derive(Exception, attributes(exception))]
pub fn exception(item: TokenStream) -> TokenStream {
    exception::expand(item.into()).into()
}

#[proc_macro_attribute]
pub fn rpc_client(arguments: TokenStream, item: TokenStream) -> TokenStream {
    rpc_client::expand(arguments.into(), &item.into()).into()
}
