//! A service can come out of a user's own macro, and can be written inside a function.

use nameko::prelude::*;

macro_rules! echo {
    ($service:ident, $name:literal, $method:ident, $argument:ident: $ty:ty) => {
        #[derive(Dependencies)]
        struct $service;

        #[service($name)]
        impl $service {
            #[rpc]
            async fn $method(&self, $argument: $ty) -> Result<$ty> {
                Ok($argument)
            }
        }
    };
}

echo!(EchoText, "echo_text", text, value: String);
echo!(EchoMaybe, "echo_maybe", maybe, value: Option<u8>);

#[test]
fn generated_services_are_services() {
    assert_eq!(
        [EchoText::NAME, EchoMaybe::NAME],
        ["echo_text", "echo_maybe"]
    );
}

#[test]
fn a_service_inside_a_function_is_a_service() {
    mod imports {
        pub(super) use nameko::prelude::*;
    }

    fn name() -> &'static str {
        use imports::*;

        #[derive(Dependencies)]
        struct Local {
            #[dependency(CurrentWorker)]
            worker: WorkerContext,
        }

        #[service("local")]
        impl Local {
            #[rpc]
            async fn who(&self) -> Result<String> {
                Ok(self.worker.to_string())
            }
        }

        Local::NAME
    }

    assert_eq!(name(), "local");
}

#[tokio::test]
async fn methods_are_called_without_a_container() {
    assert_eq!(EchoText.text("a".into()).await.unwrap(), "a");
    assert_eq!(EchoMaybe.maybe(None).await.unwrap(), None);
}
