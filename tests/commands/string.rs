//! String commands.

use crate::duel::Duel;

#[test]
fn setting_and_getting() {
    Duel::start().script(
        r#"
        GET k
        SET k v
        GET k
        get k
        STRLEN k
        STRLEN nothing
        SET k ""
        GET k
        SET "" "the empty key"
        GET ""
        SET "\x00\xff\r\n" "\x00\x01\xfe\xff\r\n$5"
        GET "\x00\xff\r\n"
        STRLEN "\x00\xff\r\n"
        GET
        GET a b
        SET k
        STRLEN
        SETNX k new
        SETNX fresh new
        SETNX fresh newer
        GET fresh
        SETNX k
        GETSET k w
        GETSET none w
        GETSET none
        GETDEL none
        GETDEL none
        GETDEL
        MGET k none fresh k
        MGET
        MSET a 1 b 2 a 3
        MGET a b
        MSET a
        MSET a 1 b
        MSET
        MSETNX c 1 d 2
        MSETNX d 3 e 4
        MSETNX e 4 e 5
        MGET c d e
        MSETNX e
        MSETNX e 1 f
        APPEND k -tail
        APPEND k ""
        APPEND log one
        APPEND log two
        APPEND empty ""
        EXISTS empty
        GET log
        APPEND k
        KEYS *
        DBSIZE
        "#,
    );
}

#[test]
fn set_with_options() {
    Duel::start().script(
        r#"
        SET k v NX
        SET k w NX
        SET k w XX
        SET none w XX
        GET k
        SET k x GET
        SET none x GET
        SET none2 x XX GET
        EXISTS none2
        SET k y NX GET
        SET fresh y NX GET
        GET fresh
        SET k y XX GET
        SET k v NX XX
        SET k v XX NX
        SET k v nx nx
        SET k v FOO
        SET k v EX
        SET k v GET EX
        SET k v EX abc
        SET k v EX 1.5
        SET k v EX 0
        SET k v EX -1
        SET k v PX 0
        SET k v EXAT 0
        SET k v PXAT -5
        SET k v EX 9223372036854775807
        SET k v EX 9223372036854776
        SET k v EX 9223372036854775
        SET k v PX 9223372036854775807
        SET k v EXAT 9223372036854776
        SET k v EXAT 9223372036854775
        PEXPIRETIME k
        SET k v PXAT 9223372036854775807
        PEXPIRETIME k
        EXPIRETIME k
        SET k v EX 99999999999999999999
        SET k v EX 100 PX 5
        SET k v EX 100 EX 200
        ~TTL k
        SET k v KEEPTTL
        ~TTL k
        SET k v KEEPTTL KEEPTTL
        ~PTTL k
        SET k v KEEPTTL EX 5
        SET k v EX 5 KEEPTTL
        SET k v PERSIST
        SET k w
        TTL k
        SET none3 v KEEPTTL
        TTL none3
        SET k v PX 500000 GET
        ~PTTL k
        SET k v EX 5 GET XX
        SET k v EXAT 33177117420
        EXPIRETIME k
        SET k v PXAT 33177117420123
        PEXPIRETIME k
        TTL none
        SET k v PXAT 1
        GET k
        EXISTS k
        SET k v
        SET k v EXAT 1 GET
        GET k
        SET k v NX EX 0
        SET k v
        SET k v NX EX 0
        SET k v NX PXAT 1
        GET k
        SETEX k 100 w
        ~TTL k
        SETEX k 0 w
        SETEX k -1 w
        SETEX k abc w
        SETEX k 9223372036854775807 w
        SETEX k 100
        PSETEX k 100000 x
        ~PTTL k
        PSETEX k 0 x
        PSETEX k 9223372036854775807 x
        PSETEX k 1e3 x
        GET k
        GETSET k y
        TTL k
        SETNX k z
        DBSIZE
        "#,
    );
}

#[test]
fn getex() {
    Duel::start().script(
        r#"
        GETEX none
        GETEX none EX 0
        GETEX none EX abc
        GETEX none EX
        GETEX
        SET k v
        GETEX k
        TTL k
        GETEX k EX 100
        ~TTL k
        GETEX k
        ~TTL k
        GETEX k PX 200000
        ~PTTL k
        GETEX k EXAT 33177117420
        EXPIRETIME k
        GETEX k PXAT 33177117420123
        PEXPIRETIME k
        GETEX k PERSIST
        TTL k
        GETEX k PERSIST
        GETEX k EX 0
        GETEX k PX -1
        GETEX k EX abc
        GETEX k EX 9223372036854775807
        GETEX k PX 9223372036854775807
        GETEX k EX 5 PX 5
        GETEX k EX 100 EX 200
        ~TTL k
        GETEX k EX 5 PERSIST
        GETEX k PERSIST EX 5
        GETEX k PERSIST PERSIST
        GETEX k KEEPTTL
        GETEX k NX
        GETEX k GET
        GETEX k EX
        TTL k
        GETEX k EXAT 1
        EXISTS k
        SET k v
        GETEX k PXAT 1000
        GET k
        GETEX k PXAT 1000
        DBSIZE
        "#,
    );
}

#[test]
fn ranges() {
    Duel::start().script(
        r#"
        SET k "This is a string"
        GETRANGE k 0 3
        GETRANGE k -3 -1
        GETRANGE k 0 -1
        GETRANGE k 10 100
        GETRANGE k 16 20
        GETRANGE k 5 2
        GETRANGE k 0 -100
        GETRANGE k -100 -100
        GETRANGE k -100 -99
        GETRANGE k -99 -100
        GETRANGE k -100 3
        GETRANGE k -1 -3
        GETRANGE k -9223372036854775808 9223372036854775807
        GETRANGE k 9223372036854775807 9223372036854775807
        GETRANGE k 9223372036854775808 1
        GETRANGE k a 1
        GETRANGE k 0 b
        GETRANGE none 0 -1
        GETRANGE none a b
        GETRANGE k 0
        SUBSTR k 0 3
        SUBSTR k -1 -1
        SUBSTR k 0 3 4
        SET empty ""
        GETRANGE empty 0 -1
        GETRANGE empty -1 0
        SETRANGE k 8 "an array"
        GET k
        SETRANGE k 20 "!"
        GET k
        SETRANGE k 0 ""
        SETRANGE k 99 ""
        STRLEN k
        SETRANGE none 5 ""
        EXISTS none
        SETRANGE none 5 x
        GET none
        SETRANGE k -1 x
        SETRANGE k -1 ""
        SETRANGE k a x
        SETRANGE k 1.0 x
        SETRANGE k 536870912 x
        SETRANGE k 536870911 xy
        SETRANGE k 536870911 ""
        SETRANGE nothing 536870912 x
        SETRANGE nothing 536870912 ""
        SETRANGE k 9223372036854775807 x
        SETRANGE k 9223372036854775808 x
        SETRANGE k 1
        EXPIRE k 1000
        SETRANGE k 0 "that"
        APPEND k "more"
        ~TTL k
        GET k
        "#,
    );
}

#[test]
fn integers() {
    Duel::start().script(
        r#"
        INCR n
        INCR n
        DECR n
        DECR n
        DECR n
        GET n
        INCRBY n 10
        DECRBY n 20
        INCRBY n -5
        DECRBY n -5
        GET n
        INCRBY n abc
        INCRBY n 1.5
        INCRBY n ""
        INCRBY n +1
        INCRBY n " 1"
        INCRBY n 01
        INCRBY n -0
        INCRBY n 9223372036854775808
        INCRBY n
        INCR
        INCR n 1
        SET n 9223372036854775807
        INCR n
        INCRBY n 1
        DECRBY n -1
        INCRBY n -1
        SET n -9223372036854775808
        DECR n
        DECRBY n 1
        DECRBY n -9223372036854775808
        DECRBY other -9223372036854775808
        INCRBY other -9223372036854775808
        SET n " 1"
        INCR n
        SET n "1 "
        INCR n
        SET n 1.0
        INCR n
        SET n ""
        INCR n
        SET n 007
        INCR n
        SET n -0
        INCR n
        SET n 123456789012345678901234567890
        DECR n
        SET n 5 EX 1000
        INCR n
        INCRBYFLOAT n 0.5
        ~TTL n
        GET n
        DECR n
        "#,
    );
}

#[test]
fn floats() {
    Duel::start().script(
        r#"
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f 0.2
        INCRBYFLOAT f -0.3
        GET f
        SET f 10.50
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f -5
        SET f 5.0e3
        INCRBYFLOAT f 2.0e2
        INCRBYFLOAT f 1e-17
        INCRBYFLOAT f 1e400
        SET f 3
        INCRBYFLOAT f 1.000000000000000005
        INCRBYFLOAT f -4
        INCRBYFLOAT f -1e-20
        GET f
        SET f 9223372036854775807
        INCRBYFLOAT f 1
        INCRBYFLOAT f 1
        INCR f
        SET f 0x1F
        INCRBYFLOAT f 0x.8p1
        INCRBYFLOAT f abc
        INCRBYFLOAT f ""
        INCRBYFLOAT f " 1"
        INCRBYFLOAT f "1 "
        INCRBYFLOAT f 1e
        INCRBYFLOAT f nan
        INCRBYFLOAT f inf
        INCRBYFLOAT f -Infinity
        INCRBYFLOAT f 1e5000
        INCRBYFLOAT f 1e-5000
        INCRBYFLOAT f "1\x00"
        INCRBYFLOAT f 1,5
        INCRBYFLOAT f
        GET f
        SET f 1e4932
        INCRBYFLOAT f 1.1e4932
        SET f text
        INCRBYFLOAT f 1
        SET f ""
        INCRBYFLOAT f 1
        SET f -0
        INCRBYFLOAT f 0
        "#,
    );
}

#[test]
fn longest_common_subsequences() {
    Duel::start().script(
        r#"
        SET a ohmytext
        SET b mynewtext
        LCS a b
        LCS a b LEN
        LCS a b IDX
        LCS a b IDX MINMATCHLEN 4
        LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN
        LCS a b IDX WITHMATCHLEN
        LCS a b IDX MINMATCHLEN -3
        LCS a b IDX MINMATCHLEN 99
        LCS a b WITHMATCHLEN
        LCS a b MINMATCHLEN 4
        LCS a b len idx
        LCS a b MINMATCHLEN
        LCS a b MINMATCHLEN abc
        LCS a b FOO
        LCS a
        LCS a none
        LCS none a LEN
        LCS none none IDX
        LCS a a IDX WITHMATCHLEN
        SET x "abcbdab"
        SET y "bdcaba"
        LCS x y
        LCS x y IDX WITHMATCHLEN
        LCS y x IDX WITHMATCHLEN
        SET x "\x00\xff\x00\xff\x01"
        SET y "\xff\x00\x01\xff"
        LCS x y
        SETRANGE x 20000 "end"
        SETRANGE y 20000 "end"
        LCS x y LEN
        "#,
    );
}

/// Values by size, and by how Redis would keep them.
#[test]
fn encodings() {
    let mut duel = Duel::start();
    let mut script = String::new();
    for value in
        ["0", "-1", "01", "1.5", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-0", ""]
    {
        script += &format!("SET k \"{value}\"\nOBJECT ENCODING k\n");
    }
    for length in [1, 20, 21, 43, 44, 45, 100, 100_000] {
        script += &format!("SET k {}\nOBJECT ENCODING k\nGET k\n", "x".repeat(length));
    }
    duel.script(&script);
}
