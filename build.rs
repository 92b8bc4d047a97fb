//! Compiles proto/ to Rust, without a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["inner_message.proto", "rsync_service.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .codec_path("crate::wire::SealedCodec")
        .bytes(".InnerMessage.InnerResponse.BinlogSync.binlog")
        .bytes(".RsyncService.FileResponse.data")
        .compile_fds(files)?;
    Ok(())
}
