# An analysis as the cells of a notebook: what checkpoints are measured with.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

rng = np.random.default_rng(0)

# %%
sales = pd.DataFrame(
    {
        "day": pd.date_range("2020-01-01", periods=200_000, freq="min"),
        "shop": rng.integers(0, 50, 200_000),
        "price": rng.gamma(3, 20, 200_000),
    }
)

# %%
sales.head()

# %%
sales.describe()

# %%
sales["weekday"] = sales["day"].dt.day_name()

# %%
sales.groupby("shop")["price"].agg(["mean", "std", "count"]).round(2)

# %%
sales.groupby("weekday")["price"].sum().sort_values()

# %%
sales.loc[rng.random(len(sales)) < 0.01, "price"] = np.nan

# %%
sales["price"] = sales["price"].fillna(sales["price"].median())

# %%
daily = sales.set_index("day")["price"].resample("D").sum()
daily.tail()

# %%
daily.plot(figsize=(6, 3))
plt.show()

# %%
daily.rolling(7).mean().plot(figsize=(6, 3))
plt.show()

# %%
sales["price"].hist(bins=50)
plt.show()

# %%
pivot = sales.pivot_table(index="shop", columns="weekday", values="price", aggfunc="mean")
pivot.round(1)

# %%
plt.imshow(pivot, aspect="auto")
plt.colorbar()
plt.show()

# %%
shops = pd.DataFrame({"shop": range(50), "region": rng.choice(list("NESW"), 50)})
merged = sales.merge(shops, on="shop")
merged.groupby("region")["price"].median()

# %%
merged.sort_values(["region", "price"]).groupby("region").tail(3)

# %%
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

features = pd.get_dummies(merged[["shop", "weekday", "region"]].sample(20_000, random_state=0))
target = merged.loc[features.index, "price"]

# %%
seen, unseen, seen_y, unseen_y = train_test_split(features, target, random_state=0)

# %%
from sklearn.linear_model import Ridge

ridge = Ridge().fit(seen, seen_y)
ridge.score(unseen, unseen_y)

# %%
from sklearn.ensemble import RandomForestRegressor

forest = RandomForestRegressor(20, max_depth=8, random_state=0).fit(seen, seen_y)

# %%
pd.Series(forest.feature_importances_, features.columns).nlargest(5)

# %%
residuals = unseen_y - forest.predict(unseen)
plt.scatter(unseen_y, residuals, s=2)
plt.show()

# %%
from sklearn.cluster import KMeans

clusters = KMeans(4, n_init=2, random_state=0).fit_predict(pivot.fillna(0))

# %%
pivot.assign(cluster=clusters).groupby("cluster").mean().round(1)

# %%
from sklearn.decomposition import PCA

parts = PCA(2).fit_transform(StandardScaler().fit_transform(pivot.fillna(0)))
plt.scatter(*parts.T, c=clusters)
plt.show()

# %%
text = "\n".join(f"{row.shop},{row.price:.2f}" for row in sales.head(20_000).itertuples())

# %%
words = {}
for line in text.splitlines():
    shop, price = line.split(",")
    words.setdefault(shop, []).append(float(price))

# %%
matrix = rng.normal(size=(600, 600))
np.linalg.svd(matrix, compute_uv=False)[:3]

# %%
matrix += matrix.T
np.linalg.eigvalsh(matrix)[-3:]

# %%
daily.to_csv("daily.csv")
pd.read_csv("daily.csv").shape

# %%
from scipy import stats

stats.ttest_ind(*(group["price"].to_numpy() for _, group in list(merged.groupby("region"))[:2]))
