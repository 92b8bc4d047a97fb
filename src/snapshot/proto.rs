//! The messages and the service of port P + 10001, generated from proto/rsync_service.proto.

#![allow(clippy::all, missing_docs)]

tonic::include_proto!("rsync_service");
