"""Answers of the five APIs: from their pages, from public documents, and made up where those are silent.

Names follow the collection that they were gathered in: F1 to F19.
"""

ACCOUNT = "jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3"
WSOL = "So11111111111111111111111111111111111111112"
JUPSOL = "jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v"
TOKEN_ACCOUNT = "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
AAPL = "0x14c3abf95cb9c93a8b82c1cdcb76d72cb87b2d4c"
TSLA = "0xf6b1117ec07684d3958cad8beb1b302bfd21103f"
HOLDER = "0x13116e8b4ffc8125b859ec60917fba540e59e55e"
OTHER_HOLDER = "0x1db995cb2b3d9679383f0e597704a41e1521f4e1"
STARK_ACCOUNT = "0x00000005dd3d2f4429af886cd1a3b08289dbcea99a294197e9eb43b0e0325b4b"
STARK_TOKEN = "0x053c91253bc9682c04929ca02ed00b3e423f6710d2ee7e0d5ebb06f3ecf368a8"

F1 = b'{"SOL":{"amount":"0","uiAmount":0,"slot":324307186,"isFrozen":false}}'
F2 = (
    b'{"SOL":{"amount":"1000000000","uiAmount":1,"slot":324307186,"isFrozen":false},'
    b'"So11111111111111111111111111111111111111112":{"amount":"5","uiAmount":5e-9,"slot":324307185,"isFrozen":true}}'
)
F3 = (
    b'{"amount":"1000000000","uiAmount":1,"uiAmountString":"1","tokens":{"jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v":'
    b'[{"account":"<b58>","amount":"1000000000","uiAmount":1,"uiAmountString":"1","isFrozen":false,'
    b'"isAssociatedTokenAccount":true,"decimals":9,"programId":"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"}]}}'
)
F3_TWO = (
    b'{"amount":"1000000000","uiAmount":1,"uiAmountString":"1","tokens":{"jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v":'
    b'[{"account":"A","amount":"1000000000","uiAmount":1,"uiAmountString":"1","isFrozen":false,'
    b'"isAssociatedTokenAccount":true,"decimals":9,"programId":"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",'
    b'"excludeFromNetWorth":false},{"account":"B","amount":"18446744073709551615","uiAmount":1,"uiAmountString":"1",'
    b'"isFrozen":true,"isAssociatedTokenAccount":false,"decimals":9,'
    b'"programId":"TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb","excludeFromNetWorth":true}]}}'
)
F4_ADDRESS = b'{"error":"Invalid address"}'
F4_THROTTLED = b'{"code":429,"message":"[API Gateway] Too many requests"}'
F4_FORBIDDEN = b'{"code":403,"message":"API key does not have access to this endpoint"}'

F5 = (
    b'{"tokens":[{"symbol":"SOL","tokenMint":"So11111111111111111111111111111111111111112",'
    b'"settledAmount":3.435929722,"unsettledAmount":0,"openOrdersAmount":0}]}'
)
F6 = b"""{
   "tokens":[
      {
         "symbol":"SRM",
         "token_mint":"SRMuApVNdxXokk5GT7XD5cUUgXMBCoAz2LHeuAoKWRt",
         "settled_amount":0.0,
         "unsettled_amount":0.0,
         "open_orders_amount":0.0
      },
      {
         "symbol":"SOL",
         "token_mint":"So11111111111111111111111111111111111111112",
         "settled_amount":3.435929722,
         "unsettled_amount":0.0,
         "open_orders_amount":0.0
      }
   ]
}"""
F7 = (
    b'{"tokens":[{"symbol":"SOL","token_mint":"So11111111111111111111111111111111111111112",'
    b'"settled_amount":"0.0","unsettled_amount":"0.0","open_orders_amount":"0.0"}]}'
)
F8 = b'{"code":8,"message":"rate limit","details":[]}'
F9 = (
    b'{"tokens":[{"symbol":"SOL","tokenMint":"So11111111111111111111111111111111111111112",'
    b'"settledAmount":5e-7,"unsettledAmount":0,"openOrdersAmount":0}]}'
)
F10 = (
    b'{"accountID":"...","tier":"Introductory","interval":"second","intervalNum":"60","limit":"60","count":"50",'
    b'"reset":"1708635900"}'
)

F11 = (
    b'{"jsonrpc":"2.0","id":"1","result":{"context":{"slot":1114},"value":{"amount":"9864","decimals":2,'
    b'"uiAmount":98.64,"uiAmountString":"98.64"}}}'
)
F11_LARGE = (
    b'{"jsonrpc":"2.0","id":"1","result":{"context":{"slot":183457201},"value":{"amount":"500000000","decimals":9,'
    b'"uiAmount":0.5,"uiAmountString":"0.5"}}}'
)
F12_ABSENT = b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid param: could not find account"},"id":"1"}'
F12_NO_TOKEN = b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid param: not a Token account"},"id":"1"}'
F12_NO_TOKEN_OLD = (
    b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid param: not a v2.0 Token account"},"id":"1"}'
)
F12_MIN_SLOT = (
    b'{"jsonrpc":"2.0","error":{"code":-32016,"message":"Minimum context slot has not been reached"},"id":"1"}'
)
F12_BEHIND = (
    b'{"jsonrpc":"2.0","error":{"code":-32005,"message":"Node is behind by 3104 slots",'
    b'"data":{"numSlotsBehind":3104}},"id":"1"}'
)
F12_TOO_MANY = b'{"jsonrpc":"2.0","error":{"code":-32005,"message":"Too many requests"},"id":"1"}'
F12_USED_UP = b'{"jsonrpc":"2.0","error":{"code":-32429,"message":"max usage reached"},"id":"1"}'
F12_TEXT = b"max usage reached"
F13_OWNER = (
    b'{"jsonrpc":"2.0","id":"1","result":{"context":{"slot":341197933},"value":[{"pubkey":'
    b'"BGocb4GEpbTFm8UFV2VsDSaBXHELPfAXrvd4vtt8QWrA","account":{"data":{"program":"spl-token","parsed":{"info":{"mint":'
    b'"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v","tokenAmount":{"amount":"420000000000000","decimals":6,'
    b'"uiAmount":420000000,"uiAmountString":"420000000"}},"type":"account"},"space":165},'
    b'"owner":"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA","rentEpoch":18446744073709551615}}]}}'
)
F13 = (
    b'{"jsonrpc":"2.0","id":"1","result":{"context":{"slot":341197933,"apiVersion":"2.2.7"},"value":[null,'
    b'{"data":{"program":"spl-token","parsed":{"info":{"isNative":false,'
    b'"mint":"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v","owner":"jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3",'
    b'"state":"initialized","tokenAmount":{"amount":"420000000000000","decimals":6,"uiAmount":420000000,'
    b'"uiAmountString":"420000000"}},"type":"account"},"space":165},"executable":false,"lamports":2039280,'
    b'"owner":"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA","rentEpoch":18446744073709551615,"space":165}]}}'
)
F13_UNCHANGED = (
    b'{"jsonrpc":"2.0","id":"1","result":{"context":{"slot":341197933},"value":[null,{"status":"unchanged"}]}}'
)

F14 = b"""{
  "tokens": [
    {
      "tokenAddress": "0x14c3abf95cb9c93a8b82c1cdcb76d72cb87b2d4c",
      "tokenSymbol": "AAPLon",
      "balances": [
        {
          "holderAddress": {"account": "0x13116e8b4ffc8125b859ec60917fba540e59e55e"},
          "balance": "0.467583800117038432"
        },
        {
          "holderAddress": {"account": "0x1db995cb2b3d9679383f0e597704a41e1521f4e1"},
          "balance": "0.641380199330235549"
        }
      ]
    },
    {
      "tokenAddress": "0xf6b1117ec07684d3958cad8beb1b302bfd21103f",
      "tokenSymbol": "TSLAon",
      "balances": [
        {
          "holderAddress": {"account": "0x00000688768803bbd44095770895ad27ad6b0d95"},
          "balance": "0.030594824589372964"
        },
        {
          "holderAddress": {"account": "0x1db995cb2b3d9679383f0e597704a41e1521f4e1"},
          "balance": "0.088854297224463519"
        }
      ]
    }
  ]
}"""
F14_PAGE = F14.rstrip(b" ]}\n") + b'}]}, "..."]}'
F15 = b'{"tokens":[]}'
F16_MISSING_KEY = b'{"message":"missing API key","code":"MISSING_API_KEY"}'
F16_FORBIDDEN = b'{"message":"Forbidden"}'
F16_THROTTLED = b'{"code":"RATE_LIMITED","message":"rate limit exceeded"}'
F16_PAUSED = b'{"code":"PAUSED_GM_CHAIN","message":"the chain is paused"}'

F17_SINGLE = b"""{
  "success": true,
  "data": {
    "account_address": "0x00000005dd3d2f4429af886cd1a3b08289dbcea99a294197e9eb43b0e0325b4b",
    "token_address": "0x053c91253bc9682c04929ca02ed00b3e423f6710d2ee7e0d5ebb06f3ecf368a8",
    "balance": "6543110900255",
    "balance_usd": 6543110.900255,
    "last_updated": "2026-01-25T14:43:57+00:00"
  }
}"""
F17_BATCH_PAGE = b"""{
  "success": true,
  "data": [
    {
      "account_address": "0x...",
      "token_address": "0x053c91253...",
      "balance": "6543110900255",
      "balance_usd": 6543110.900255,
      "last_updated": "2026-01-25T14:43:57+00:00"
    }
  ],
  "errors": null
}"""
F17_LISTING_PAGE = b"""{
  "success": true,
  "count": 12,
  "data": [
    {
      "id": 1234,
      "account": { "address": "0x..." },
      "token": {
        "address": "0x053c91253...",
        "symbol": "USDC",
        "name": "USD Coin",
        "decimals": 6,
        "current_price_usd": "1.000123",
        "logo": "https://.../usdc.png"
      },
      "balance": "6543110900255",
      "balance_usd": "6543110.900255",
      "last_updated": "2026-01-25T14:43:57Z"
    }
  ]
}"""
F17_BATCH = F17_BATCH_PAGE.replace(b'"0x..."', f'"{STARK_ACCOUNT}"'.encode()).replace(
    b'"0x053c91253..."', f'"{STARK_TOKEN}"'.encode()
)
F17_LISTING = F17_LISTING_PAGE.replace(b'"0x..."', f'"{STARK_ACCOUNT}"'.encode()).replace(
    b'"0x053c91253..."', f'"{STARK_TOKEN}"'.encode()
)
F18 = F17_BATCH.replace(b"null", b'[{"reason":"chain fetch failed"},17]')
F19 = b'{"detail":"Request was throttled. Expected available in 86 seconds."}'
