-- The sandbox: what scripts see instead of Lua's own globals. Run once for each interpreter; returns its handles.
--
-- Lua 5.1 knows no read-only tables, so scripts get an empty table for each protected one: reading looks into the
-- contents, writing raises the error. Functions that look past metatables are replaced by ones that know these tables.

local lua, natives, options = ...

local READONLY = "Attempt to modify a readonly table"

local error, type, select, tonumber, tostring = lua.error, lua.type, lua.select, lua.tonumber, lua.tostring
local rawnext, rawpairs, rawget_, rawset_ = lua.next, lua.pairs, lua.rawget, lua.rawset
local rawpcall, rawxpcall, rawunpack = lua.pcall, lua.xpcall, lua.unpack
local rawgetmetatable, rawsetmetatable = lua.getmetatable, lua.setmetatable
local rawloadstring, rawcollect, rawresume = lua.loadstring, lua.collectgarbage, lua.coroutine.resume
local byte, concat, floor = lua.string.byte, lua.table.concat, lua.math.floor
local caught, check = natives.caught, natives.check

local contents = {} -- protected table -> what it shows
local shown = {}    -- metatable -> what getmetatable shows of it, false for nothing
local protected = {}

local function refuse()
    error(READONLY, 2)
end

local function missing(_, name)
    if type(name) ~= "string" and type(name) ~= "number" then
        error("Second argument to luaProtectedTableError must be a string or number", 2)
    end
    error("Script attempted to access nonexistent global variable '" .. name .. "'", 2)
end

local function protect(table, metatable)
    local front, meta = {}, { __index = table, __newindex = refuse }
    contents[front] = table
    shown[meta] = metatable or false
    protected[#protected + 1] = front
    return rawsetmetatable(front, meta)
end

-- `level` is that of the function that complains, seen from here.
local function bad_argument(level, number, name, complaint)
    error("bad argument #" .. number .. " to '" .. name .. "' (" .. complaint .. ")", level + 1)
end

local function need_table(value, name, given)
    if type(value) ~= "table" then
        bad_argument(3, 1, name, "table expected, got " .. (given == 0 and "no value" or type(value)))
    end
end

-- Catching: errors of native functions become what Redis would have raised; what stops a script passes through.

local function outcome(as_text, ok, ...)
    if ok then
        return true, ...
    end
    return false, caught((...), as_text)
end

local function pcall(...)
    if select("#", ...) == 0 then
        bad_argument(2, 1, "pcall", "value expected")
    end
    return outcome(true, rawpcall(...))
end

local function xpcall_outcome(ok, ...)
    if not ok then
        check()
    end
    return ok, ...
end

local function xpcall(...)
    local f, handler = ...
    if select("#", ...) < 2 then
        bad_argument(2, 2, "xpcall", "value expected")
    end
    return xpcall_outcome(rawxpcall(f, function(e)
        return handler(caught(e, false))
    end))
end

local function resume(...)
    if type((...)) ~= "thread" then
        bad_argument(2, 1, "resume", "coroutine expected")
    end
    return outcome(false, rawresume(...))
end

-- Functions that see past metatables.

local function next(...)
    local t, key = ...
    need_table(t, "next", select("#", ...))
    return rawnext(contents[t] or t, key)
end

local function pairs(...)
    local t = ...
    need_table(t, "pairs", select("#", ...))
    if contents[t] then
        return next, t, nil
    end
    return rawnext, t, nil
end

local function rawget(...)
    local t, key = ...
    need_table(t, "rawget", select("#", ...))
    return rawget_(contents[t] or t, key)
end

local function rawset(...)
    local t, key, value = ...
    need_table(t, "rawset", select("#", ...))
    if contents[t] then
        error(READONLY, 0)
    end
    return rawset_(t, key, value)
end

local function getmetatable(value)
    local meta = rawgetmetatable(value)
    if meta ~= nil and shown[meta] ~= nil then
        return shown[meta] or nil
    end
    return meta
end

local function setmetatable(...)
    local t, meta = ...
    need_table(t, "setmetatable", select("#", ...))
    if contents[t] then
        error(READONLY, 0)
    end
    if type(meta) ~= "table" and (meta ~= nil or select("#", ...) < 2) then
        bad_argument(2, 2, "setmetatable", "nil or table expected")
    end
    if rawgetmetatable(t) ~= nil and not rawpcall(rawsetmetatable, t, meta) then
        error("cannot change a protected metatable", 2)
    end
    return rawsetmetatable(t, meta)
end

-- Lua computes the number of results in 32 bits, and natives get at most options.values references at once.
local function unpack(...)
    local t, i, j = ...
    need_table(t, "unpack", select("#", ...))
    if i == nil and j == nil and #t <= options.values then
        return rawunpack(...)
    end
    local from, to = tonumber(i == nil and 1 or i), tonumber(j == nil and #t or j)
    if not from then
        bad_argument(2, 2, "unpack", "number expected, got " .. type(i))
    elseif not to then
        bad_argument(2, 3, "unpack", "number expected, got " .. type(j))
    elseif from <= to then
        if from < -2147483648 or to > 2147483647 or to - from + 1 + select("#", ...) > 8000 then
            error("too many results to unpack", 2)
        end
        local references = 0
        for k = floor(from), to - from >= options.values and floor(to) or from - 1 do
            local kind = type(t[k])
            if kind ~= "number" and kind ~= "nil" and kind ~= "boolean" then
                references = references + 1
            end
        end
        if references > options.values then
            error("too many results to unpack", 2)
        end
    end
    return rawunpack(...)
end

-- Scripts are compiled from text only: bytecode can break the interpreter.

local function loadstring(text, name)
    if type(text) ~= "string" and type(text) ~= "number" then
        bad_argument(2, 1, "loadstring", "string expected, got " .. (text == nil and "nil" or type(text)))
    end
    if type(text) == "string" and byte(text, 1) == 27 then
        return nil, '[string "' .. (name and tostring(name) or "LuaQ") .. '"]:1: unexpected symbol near \'char(27)\''
    end
    return rawloadstring(text, name)
end

local function load(reader, name)
    if type(reader) ~= "function" then
        bad_argument(2, 1, "load", "function expected, got " .. type(reader))
    end
    local pieces = {}
    while true do
        local piece = reader()
        if piece == nil or piece == "" then
            break
        elseif type(piece) ~= "string" and type(piece) ~= "number" then
            return nil, "reader function must return a string"
        end
        pieces[#pieces + 1] = piece
    end
    return loadstring(concat(pieces), name or "=(load)")
end

-- The collector serves the scripts to come as well: they may run it, not tune it.
local function collectgarbage(option, argument)
    if option == nil or option == "collect" or option == "count" or option == "step" then
        return rawcollect(option, argument)
    elseif option == "stop" or option == "restart" or option == "setpause" or option == "setstepmul" then
        return 0
    end
    bad_argument(2, 1, "collectgarbage", "invalid option '" .. tostring(option) .. "'")
end

local string_contents = lua.string
local string_meta = rawgetmetatable("")

-- Natives called with nearly as many values as a call can take have no room to work: this one works for them.
local create, yield = lua.coroutine.create, lua.coroutine.yield
local worker = create(function()
    while true do
        natives.perform()
        yield()
    end
end)

local coroutine = {}
for name, f in rawpairs(lua.coroutine) do
    coroutine[name] = f
end
coroutine.resume = resume

lua.math.random, lua.math.randomseed = natives.random, natives.randomseed

local globals = {
    _VERSION = lua._VERSION, assert = lua.assert, error = error, gcinfo = lua.gcinfo, ipairs = lua.ipairs,
    rawequal = lua.rawequal, select = select, tonumber = tonumber, tostring = tostring, type = type,
    collectgarbage = collectgarbage, getmetatable = getmetatable, load = load, loadstring = loadstring, next = next,
    pairs = pairs, pcall = pcall, rawget = rawget, rawset = rawset, setmetatable = setmetatable, unpack = unpack,
    xpcall = xpcall,
    bit = protect(natives.bit), cjson = protect(natives.cjson), cmsgpack = protect(natives.cmsgpack),
    coroutine = protect(coroutine), math = protect(lua.math), os = protect(natives.os), redis = protect(natives.redis),
    string = protect(string_contents), struct = protect(natives.struct), table = protect(lua.table),
}
if options.deprecated then
    local setfenv = lua.setfenv
    globals.getfenv, globals.newproxy = lua.getfenv, lua.newproxy
    globals.setfenv = function(f, environment)
        if f == 0 then
            error(READONLY, 0) -- the environment of scripts to come
        end
        return setfenv(type(f) == "number" and f + 1 or f, environment)
    end
end
rawsetmetatable(globals, { __index = missing })

local front = {}
local front_meta = { __index = globals, __newindex = refuse }
contents[front] = globals
globals._G = front
protected[#protected + 1] = front
shown[front_meta] = protect({ __index = missing })
rawsetmetatable(front, front_meta)
shown[string_meta] = protect({ __index = globals.string })

-- What the code of a library sees while it is loaded.
local loading = rawsetmetatable({
    redis = protect(rawsetmetatable(natives.loading, { __index = missing })),
}, { __index = missing })

-- Raw writes, as table.insert makes them, land in the empty tables: they end with the script.
local function tidy()
    for i = 1, #protected do
        local t = protected[i]
        local key = rawnext(t)
        while key ~= nil do
            rawset_(t, key, nil)
            key = rawnext(t)
        end
    end
end

-- The first native to return leaves behind what the next ones need to raise errors; one called with very many
-- values would have no room to make it.
check()

return {
    globals = front,
    worker = worker,
    eval = function(f, keys, argv)
        rawset_(globals, "KEYS", keys)
        rawset_(globals, "ARGV", argv)
        local ok, value = rawxpcall(f, natives.located)
        rawset_(globals, "KEYS", nil)
        rawset_(globals, "ARGV", nil)
        tidy()
        return ok, value
    end,
    call = function(f, keys, argv)
        local ok, value = rawxpcall(function()
            return f(keys, argv)
        end, natives.located)
        tidy()
        return ok, value
    end,
    load = function(f)
        front_meta.__index = loading
        local ok, e = rawpcall(f)
        front_meta.__index = globals
        tidy()
        return ok, e
    end,
}
