//! Methods of class `tx`: transactions over the publishes and settlements of a channel.

use amq_protocol::protocol::{
    AMQPClass, tx,
    tx::AMQPMethod::{self as Method, Commit, CommitOk, Rollback, RollbackOk, Select, SelectOk},
};

use crate::{
    channel::{Channel, ChannelContext, ChannelMode},
    error::{AmqpError, Result},
};

impl Channel {
    pub(super) fn tx(&mut self, context: &ChannelContext<'_>, method: Method) -> Result<()> {
        let reply = match method {
            Select(_) => {
                self.tx_select(context)?;
                SelectOk(tx::SelectOk {})
            }
            Commit(_) => {
                self.check_transactional()?;
                let mut state = context.vhost.lock();
                state.commit(self.id, |message| self.send_return(context, message))?;
                CommitOk(tx::CommitOk {})
            }
            Rollback(_) => {
                self.check_transactional()?;
                context.vhost.lock().roll_back(self.id);
                RollbackOk(tx::RollbackOk {})
            }
            _ => return Err(AmqpError::unknown_method()),
        };
        self.reply(context, false, AMQPClass::Tx(reply));
        Ok(())
    }

    fn tx_select(&mut self, context: &ChannelContext<'_>) -> Result<()> {
        match self.mode {
            ChannelMode::Normal => {
                context.vhost.lock().begin_transaction(self.id);
                self.mode = ChannelMode::Transaction;
                Ok(())
            }
            ChannelMode::Transaction => Ok(()),
            ChannelMode::Confirm(_) => Err(AmqpError::precondition_failed(
                "cannot switch from confirm to tx mode",
            )),
        }
    }

    fn check_transactional(&self) -> Result<()> {
        match self.mode {
            ChannelMode::Transaction => Ok(()),
            _ => Err(AmqpError::precondition_failed(
                "channel is not transactional",
            )),
        }
    }
}
