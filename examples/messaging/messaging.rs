//! Resizes pictures one by one, in the order of their priority: `cargo run --bin messaging -- run`.
//!
//! To resize one: `cargo run --bin messaging -- call studio.resize "picture='cat.jpg'" priority=5`.
//! A picture that cannot be resized, such as `broken.jpg`, goes to the queue `failed`.

use std::io::{Write, stdout};

use nameko::prelude::*;

/// The queue of pictures. Both services declare it, so they can start in any order.
fn pictures() -> Queue {
    Queue::new("pictures")
        .bind(Exchange::direct("studio"), "resize")
        .max_priority(5)
        .dead_letter("", "failed")
}

#[derive(Dependencies)]
struct Studio {
    #[dependency(
        Publisher::new(Exchange::direct("studio"))
            .declare(pictures())
            .declare("failed")
            .routing_key("resize")
            .mandatory(true)
    )]
    work: MessagePublisher,
}

#[service("studio")]
impl Studio {
    #[rpc]
    async fn resize(&self, picture: String, priority: Option<u8>) -> Result<()> {
        let message = self.work.publish(&picture);
        message.priority(priority.unwrap_or(0)).await
    }
}

#[derive(Dependencies)]
struct Resizer;

#[service("resizer")]
impl Resizer {
    #[consume(pictures(), reject_on_error, prefetch_count = 1)]
    async fn resize(&self, picture: String) -> Result<()> {
        if picture == "broken.jpg" {
            return Err("not a picture".into());
        }
        writeln!(stdout(), "resized {picture}")?;
        Ok(())
    }

    #[consume("failed")]
    async fn report_failure(&self, picture: String) -> Result<()> {
        writeln!(stdout(), "could not resize {picture}")?;
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Studio, Resizer])
}

#[cfg(test)]
mod tests {
    use super::*;
    use nameko::testing::Recorder;

    #[tokio::test]
    async fn an_urgent_picture_has_a_higher_priority() {
        let sent = Recorder::new();
        let recorder = sent.clone();
        let work = MessagePublisher::mock(move |message| {
            recorder.record(message);
            Ok(())
        });
        let studio = Studio { work };
        studio
            .resize("cat.jpg".to_owned(), Some(5))
            .await
            .expect("published");
        let message = sent.items().remove(0);
        assert_eq!(message.properties.priority, Some(5));
        assert_eq!(&message.body[..], b"\"cat.jpg\"");
    }
}
